"""A student's server that hangs without dying."""

import asyncio
import signal

from flows.rolling import HeldStudents
from tests.flows.test_rolling import SECONDS, settings_with, vllm

HUNG = 2.0


def test_a_student_that_hangs_is_found_out_and_held_again_once_it_answers(tmp_path):
    async def live(url, process):
        said = []
        async with HeldStudents(settings_with(tmp_path, url), said.append, hung=HUNG) as students:
            await students.hold("plain")
            await asyncio.sleep(2 * HUNG + 0.1)  # asked after HUNG seconds, it would be out after as many again
            assert students.ready == {"plain"}, "it answers"
            process.send_signal(signal.SIGSTOP)
            while students.ready:
                await asyncio.sleep(0.05)
            assert "plain hangs (no answer in 2 s)" in said[0]
            process.send_signal(signal.SIGCONT)
            await students.hold("plain")
            assert students.ready == {"plain"}

    with vllm("plain") as (url, process):
        asyncio.run(asyncio.wait_for(live(url, process), SECONDS))
