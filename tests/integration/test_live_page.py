"""The live page in a real browser: what it shows, and what its buttons do to real processes."""

import asyncio
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_demo import children_of, demo
from tests.support.chromium import CHROMIUM, Page, chromium
from tests.support.mock import run
from tests.support.processes import PATIENCE_S, SKYLB, Child

pytestmark = [
    pytest.mark.any_clock,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (Debian: apt install chromium)"),
    pytest.mark.timeout(480),
]

SHOTS = Path(__file__).parents[2] / ".pytest_cache" / "screenshots"


def card(region: str, text: str) -> str:
    return f"document.querySelector('[data-region={region}]').innerText.includes({text!r})"


def replica(name: str, text: str) -> str:
    return f"document.querySelector('[data-replica={name}]').innerText.includes({text!r})"


def link(name: str, text: str) -> str:
    return f"document.querySelector('[data-link={name}]').innerText.includes({text!r})"


def button(verb: str, what: str, name: str) -> str:
    return f"button[data-do={verb}][data-what={what}][data-name={name}]"


FORWARDED = r"/(us|eu|asia) → (us|eu|asia) [0-9]/.test(document.getElementById('links').innerText)"
"""Load moves from one region to another."""


async def answered(page: Page) -> int:
    """Answers so far, as the page tells."""
    found = await page.value("[...document.querySelectorAll('.totals div')].map(d => d.innerText).join(' ')")
    match = re.search(r"(\d+)\s+answered", found)
    return int(match[1]) if match else 0


async def more_answers(page: Page) -> None:
    """Waits until requests go on being answered."""
    before = await answered(page)
    await page.until(
        "Number([...document.querySelectorAll('.totals div')]"
        f".find(d => d.innerText.includes('answered')).querySelector('b').innerText) > {before + 10}"
    )


def keep(name: str, png: bytes) -> None:
    """Leaves a screenshot where a person can look at it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / f"{name}.png").write_bytes(png)


def mark(text: str) -> str:
    """A switch shows as a mark in the chart of all users' TTFT."""
    return f"[...document.querySelectorAll('#ttft .mark')].some(m => m.innerText.includes({text!r}))"


async def turn_the_switches(page: Page, child: Child) -> None:
    """Each acts on all balancers, leaves a mark, and puts two numbers beside each other."""
    del child
    await page.until("Number(document.body.dataset.frame) > 20")  # so that there is a number before it
    await page.click(button("set", "policy", "round_robin"))
    await page.until(
        f"document.querySelector({button('set', 'policy', 'round_robin')!r}).ariaChecked === 'true'"
    )
    await page.until(mark("round robin"))
    await page.until("document.getElementById('before').innerText.includes('before: predictive')")
    await page.until(r"/since: round robin\s+[0-9.]+ m?s\s+TTFT P90 of [0-9]+/.test(since.innerText)")
    await page.until("document.querySelectorAll('#given tr').length === 3")
    keep("switched", await page.screenshot())
    await page.click(button("set", "policy", "predictive"))
    await page.until(mark("predictive"))
    await page.click(button("set", "share", "off"))
    await page.until(mark("regions alone"))
    await page.until(r"/since: predictive, regions alone/.test(since.innerText)")
    await page.click(button("set", "share", "on"))
    await page.until(mark("regions share"))


async def press_every_button(page: Page, child: Child) -> None:
    await page.until("Number(document.body.dataset.frame) > 2")
    assert await page.value("[...document.querySelectorAll('[data-region]')].map(c => c.dataset.region)") == [
        "us",
        "eu",
        "asia",
    ]
    await more_answers(page)
    await page.until(FORWARDED)
    processes = len(children_of(child.pid))

    await page.click(button("kill", "replica", "us-1"))
    await page.until(replica("us-1", "killed"))
    assert len(children_of(child.pid)) == processes - 1
    await more_answers(page)
    await page.click(button("start", "replica", "us-1"))
    await page.until(replica("us-1", "up"))

    await page.click(button("cut", "link", "us-eu"))
    await page.until(link("us-eu", "cut"))
    await page.until(link("us-eu", "us: eu unreachable"))
    keep("cut", await page.screenshot())
    await page.click(button("heal", "link", "us-eu"))
    await page.until(link("us-eu", "90 ms"))
    await page.until(f"!({link('us-eu', 'unreachable')})")

    await page.click(button("kill", "balancer", "eu"))
    await page.until(card("eu", "balancer killed"))
    await page.until(card("eu", "sent to us"))
    await page.until(replica("eu-1", "served by us"))
    keep("killed", await page.screenshot())
    await more_answers(page)
    await page.click(button("start", "balancer", "eu"))
    await page.until(f"!({card('eu', 'balancer killed')}) && !({card('eu', 'sent to')})")
    await page.until(f"!({replica('eu-1', 'served by')})")

    await turn_the_switches(page, child)

    await page.click(button("evacuate", "region", "asia"))
    await page.until(card("asia", "evacuated"))
    await more_answers(page)
    await page.click(button("return", "region", "asia"))
    await page.until(f"!({card('asia', 'evacuated')})")
    keep("after", await page.screenshot())
    assert page.complaints == []


def test_every_button_of_the_demos_page_does_to_the_regions_what_it_says() -> None:
    with demo("--users", "24", "--replicas", "1", "--day-s", "30") as child:
        url = child.require(
            lambda: re.search(r"live page: (http://\S+)", child.text()), timeout_s=180, what="the page's URL"
        )
        assert url is not None
        address = url[1]

        async def drive() -> None:
            async with chromium(address) as page:
                await press_every_button(page, child)

        run(drive)
        child.send(signal.SIGINT)
        assert child.popen.wait(30) == 0


@contextmanager
def balancer(*arguments: str) -> Iterator[tuple[str, list[str], Child]]:
    """A balancer with two mock replicas: the URL of its page, the replicas' URLs, and their process."""
    replicas = Child([*SKYLB, "mock", "--listen", "127.0.0.1:0", "--count", "2"])
    serving = None
    try:
        replicas.require(lambda: "\nready" in replicas.text(), timeout_s=30, what="replicas")
        urls = re.findall(r"http://\S+", replicas.text())
        words = [word for url in urls for word in ("--replica", url)]
        ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        serving = Child([*SKYLB, "serve", *ports, *arguments, *words])
        said = serving.text
        admin = serving.require(
            lambda: re.search(r"admin +(http://\S+)", said()), timeout_s=30, what="its admin URL"
        )
        assert admin is not None
        yield f"{admin[1]}/", urls, replicas
    finally:
        if serving is not None:
            serving.stop()
        replicas.stop()


def line(label: str, text: str) -> str:
    return f"document.querySelector('[data-replica=\"{label}\"]').innerText.includes({text!r})"


def says(where: str, text: str) -> str:
    return f"document.getElementById({where!r}).innerText.includes({text!r})"


def post(url: str) -> None:
    """An order to the admin listener."""
    order = urllib.request.Request(url, method="POST", data=b"")
    with urllib.request.urlopen(order, timeout=PATIENCE_S) as answer:
        assert answer.status == 200


async def drain_and_kill(page: Page, admin: str, urls: list[str], replicas: Child) -> None:
    """Drains a replica with its button, takes it back, announces its end, takes it back, and kills both."""
    label = urls[0].removeprefix("http://")
    await page.until("document.querySelectorAll('[data-replica]').length === 2")
    await page.until(says("headline", "All well: 2 replicas serve"))
    assert await page.value("document.getElementById('peerbox').hidden")
    button = f"[data-replica='{label}'] button"
    await page.click(button)
    await page.until(line(label, "draining"))
    await page.until(line(label, "by an operator"))
    await page.until(says("troubles", f"Replica {label} has been draining"))
    await page.until(says("events", f"replica {label} is draining: by an operator"))
    await page.click(button)
    await page.until(f"!({line(label, 'draining')})")
    await asyncio.to_thread(post, f"{admin.rstrip(chr(47))}/replicas/{label}/leave?in=600")
    for left in ("ends in 59", "ends in 58"):  # it counts
        await page.until(line(label, left))
    keep("leaving", await page.screenshot())
    await page.click(button)
    await page.until(f"!({line(label, 'ends in')})")
    await page.until(says("headline", "All well: 2 replicas serve"))
    replicas.kill()
    await page.until(says("headline", "No request can be served: no replica is ready."))
    await page.until(line(label, "down"))
    await page.until(says("events", f"replica {label} is down: connection refused"))


def test_a_balancers_own_page_drains_a_replica_and_says_what_is_wrong_when_all_are_killed() -> None:
    with balancer() as (address, urls, replicas):

        async def look() -> None:
            async with chromium(address) as page:
                await drain_and_kill(page, address, urls, replicas)
                assert page.complaints == []
                keep("own-down", await page.screenshot())

        run(look)


def test_a_balancers_own_page_asks_for_the_token_and_drains_with_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    token.chmod(0o600)
    with balancer("--admin-token-file", str(token)) as (address, urls, _):

        async def look() -> None:
            async with chromium(address) as page:
                for word in ("wrong", "sesame"):
                    await page.until("!document.getElementById('token').hidden")
                    assert await page.value("document.querySelectorAll('[data-replica]').length") == 0
                    await page.value("document.querySelector('#token input').value = ''")
                    await page.click("#token input")
                    await page.tell("Input.insertText", text=word)
                    await page.click("#token button")
                await page.until("document.querySelectorAll('[data-replica]').length === 2")
                names = await page.value(
                    "[...document.querySelectorAll('[data-replica]')].map(r => r.dataset.replica)"
                )
                assert sorted(f"http://{name}" for name in names) == sorted(urls)
                await page.click(f"[data-replica='{names[0]}'] button")
                await page.until(line(names[0], "draining"))
                assert [text for text in page.complaints if "401" not in text] == []
                keep("own", await page.screenshot())

        run(look)
