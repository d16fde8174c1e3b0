"""The page's templates made into text, and the style sheet and scripts beside them."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request, Response

from evals.page.request import root
from evals.page.show import visible
from evals.page.sign_in import Session, SignIn

HERE = Path(__file__).parent
TYPES = {".css": "text/css", ".js": "text/javascript"}


class Html:
    """Renders templates. `allowed` holds, by number of field, the values of those that are closed."""

    def __init__(self, sign_in: SignIn, allowed: Mapping[str, Sequence[str]]) -> None:
        self.sign_in, self.allowed = sign_in, allowed
        self.files = {file.name: file.read_bytes() for file in sorted((HERE / "static").iterdir())}
        self.digest = blake2b(b"".join(self.files.values()), digest_size=8).hexdigest()
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self.templates.filters |= {"visible": visible, "count": "{:,.0f}".format, "percent": "{:.0%}".format}

    def render(self, name: str, request: Request, session: Session | None, work: Mapping[str, Any]) -> str:
        """The template `name` filled with `work`, its addresses under the prefix that the request came by."""
        prefix = root(request)
        return self.templates.get_template(f"{name}.html.j2").render(
            **work,
            root=prefix,
            static=f"{prefix}/static/{self.digest}",
            reviewer=session.reviewer if session else "",
            csrf=self.sign_in.csrf(session) if session else "",
            allowed=self.allowed,
        )

    def file(self, digest: str, name: str) -> Response:
        """A style sheet or script. Its address changes with the content, so browsers may keep it for ever."""
        if digest != self.digest or name not in self.files:
            return Response("Not found.\n", 404, media_type="text/plain")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self.files[name], headers=headers, media_type=TYPES[Path(name).suffix])
