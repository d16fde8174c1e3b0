"""Anything that may be sent to the service, good and bad, made by schemathesis from its own description.

By hand, against a service that runs: st run http://127.0.0.1:8017/openapi.json --max-examples 1000
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from cache.openapi import describe
from labels.semantic_roles import SemanticRoles
from tests.cache.serving import serving
from tests.cache.shop import publish_queries

schema = schemathesis.openapi.from_dict(describe(SemanticRoles))


@pytest.fixture(scope="module")
def url(redis_url):
    with serving(redis_url) as (http, _):
        yield str(http.base_url)


@pytest.fixture
def shop(client, url):
    """A service that serves milk."""
    publish_queries(client, 1, "milk")
    return url


@schema.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_service_does_what_its_description_says_whatever_it_is_sent(case, shop):
    case.call_and_validate(base_url=shop)
