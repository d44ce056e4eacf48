"""The page of the service as a person sees it, in headless Chromium."""

from __future__ import annotations

import json
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from tests.cluster.service.rows import submission
from tests.integration.job_service import served
from tests.scenarios.browser import DESK, PHONE, chromium, needs_chromium
from tests.scenarios.served import Served
from tests.tiers import slow_but

from thalweg_cluster.security.guard import Guard
from thalweg_cluster.security.tokens import Tokens
from thalweg_proto.jobs import State

pytestmark = needs_chromium

HARMFUL = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
CURVES = "return [...document.querySelectorAll('#charts canvas')].map((each) => each.toDataURL())"
LOOKED = """
window.changes = 0;
new MutationObserver((found) => (window.changes += found.length)).observe(document.body, {
  subtree: true, childList: true, attributes: true, characterData: true,
});
"""


@pytest.fixture(scope="module")
def chromium_of_all():
    with chromium() as opened:
        yield opened


@pytest.fixture
def browser(chromium_of_all):
    chromium_of_all.fresh()
    return chromium_of_all


@pytest.fixture
def service(tmp_path):
    """Without Ray, with jobs that only pretend."""
    with served(tmp_path / "state") as standing:
        yield standing


def add(service, name: str = "digits", state: State = State.QUEUED, error: str = "", workers: int = 9) -> int:
    """A job, of which a run begins to write where it is to run."""
    number = len(service.table.ids()) + 1
    taken = submission(f"request-{number}", name=name, workers=workers)
    job = service.table.add(taken, lambda job_id: service.keeper.folder(job_id).mkdir(parents=True))
    if state is not State.QUEUED:
        service.runner.alive[service.keeper.folder(job.id)] = None
        service.table.change(job.id, State.RUNNING, started_s=2.0)
    if state.ended:
        service.table.change(job.id, state, ended_s=3.0, error=error, step=1234)
    service.changes.tell()
    return job.id


def so_far(step: int, slow: float) -> dict:
    columns = {
        "rank": [0, 1], "steps": [step, step], "microbatches": [4 * step, 4 * step], "sample_s": [1e-4 * step] * 2,
        "compute_s": [1e-3 * step, slow * 1e-3 * step], "push_s": [1e-5 * step] * 2,
        "wait_s": [2e-3 * step, 1e-4 * step], "waited_for_s": [0.0, 1e-3 * step],
    }  # fmt: skip
    return {
        "time_s": 1e-2 * step, "steps": 10_000, "workers": columns, "sits_out": [], "skipped": 0,
        "staleness": {"mean": 0.75, "max": 3}, "checkpoints": {"saved": 7, "failed": 0, "skipped": 1, "step": 900},
    }  # fmt: skip


def write(service, job: int, steps: range, slow: float = 3.0) -> None:
    with (service.keeper.folder(job) / "metrics.jsonl").open("a") as metrics:
        for step in steps:
            row = {
                "step": step, "time_s": 1e-2 * step, "train_loss": 2.0 / (1 + step), "samples_per_s": 1e4 + step,
                "evaluation": {"loss": 2.5 / (1 + step), "accuracy": 1 - 1 / step} if step % 10 == 0 else None,
                "so_far": so_far(step, slow),
            }  # fmt: skip
            metrics.write(json.dumps(row) + "\n")
    service.changes.tell()


def luminance(color: str) -> float:
    """Of "rgb(r, g, b)" (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    shares = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.slow
def test_a_real_job_moves_can_be_cancelled_and_one_that_fails_says_why(browser, job, tmp_path):
    """On real Ray: the curves grow while nothing is loaded anew, two clicks end the job, and nobody else is asked."""
    with ExitStack() as stack:
        service = Served(tmp_path / "state", stack)
        words = [
            word
            for text in ("train.steps=10000000", "train.eval_every=200", "checkpoint.every_steps=200")
            for word in ("--set", text)
        ]
        service.command("submit", str(job), *words)
        browser.open(f"{service.page}#1")
        browser.run("window.same = true")
        browser.until(lambda: len(browser.run(CURVES)) == 3, "curves of loss, accuracy and samples/s")
        before = browser.run(CURVES)
        browser.until(lambda: all(map(str.__ne__, before, browser.run(CURVES))), "that each of them moves")
        browser.until_text("workers", "worker 1")
        browser.until_text("figures", "newest: step")
        assert "running" in browser.text("job-state")
        assert browser.run("return document.querySelector('#list .progress').hidden") is False
        browser.click("cancel")
        browser.until_text("cancel", "sure?")
        browser.click("cancel")
        browser.until_text("job-state", "cancelled")
        assert service.summary("1")["state"] == "cancelled"

        service.command("submit", str(job), "--set", "optimizer.learning_rate=1e30")
        browser.until_text("list", "failed")
        assert "Lower optimizer.learning_rate" in browser.text("list")
        browser.run("location.hash = '#2'")
        browser.until_text("reason", "the learning rate was 1e+30")
        assert browser.run("return window.same"), "the page was loaded anew"
        assert browser.asked() == {service.page.rstrip("/")}
        assert browser.complaints() == []


def test_a_curve_is_drawn_with_its_figures_workers_and_losses(browser, service):
    """As they come; the straggler is named, and what died."""
    job = add(service, state=State.RUNNING)
    browser.open(f"{service.page.url}#{job}")
    browser.until_text("job-state", "running")
    write(service, job, range(1, 60))
    browser.until_text("figures", "59")
    write(service, job, range(60, 2001))
    browser.until_text("figures", "2,000")
    assert len(browser.run(CURVES)) == 4
    figures = browser.text("figures")
    for expected in ("99.95 %", "12,000", "at most 3", "newest: step 900, 1 skipped", "of 10,000"):
        assert expected in figures, expected
    workers = browser.text("workers").splitlines()
    assert any("worker 1, straggler" in line for line in workers)
    assert not any("worker 0, straggler" in line for line in workers)
    (service.keeper.folder(job) / "coordinator.json").write_text(
        json.dumps({"losses": [["worker", 1, "it was killed by signal 9"]]})
    )
    browser.until_text("losses", "worker 1: it was killed by signal 9")


def test_what_a_job_says_is_text_and_nothing_else(browser, service):
    """A name and an error that are HTML, with a script, are shown as they are."""
    add(service, HARMFUL, State.FAILED, f"{HARMFUL}\nthe second line")
    browser.open(f"{service.page.url}#1")
    browser.until_text("reason", "the second line")
    assert browser.text("name") == HARMFUL
    assert HARMFUL in browser.text("list")
    assert browser.run("return [document.title, document.images.length, document.scripts.length]") == ["Thalweg", 0, 2]
    assert browser.complaints() == []


def test_with_many_jobs_a_change_costs_what_it_costs_with_one(browser, service):
    """With 100 in the list, and a curve of 5,000 lines: the change of a job is told alone and touches its entry only;
    no more than 1,024 points came of the curve; the filter shows what it lets through."""

    def changes_of(name: str) -> int:
        changed = add(service, name)
        browser.until_text("list", name)
        browser.run(LOOKED)
        service.table.cancel(changed, 5.0)
        service.changes.tell()
        browser.until(lambda: browser.run("return window.changes") > 0, "a change")
        browser.until_text("counts", f"{len(service.table.newest(1000, state=State.CANCELLED))} cancelled")
        return browser.run("return window.changes")

    browser.open(service.page.url)
    alone = changes_of("the first one")
    for number in range(97):
        add(service, f"job-{number}", State.FAILED if number % 2 else State.QUEUED, "it failed\n" + "x" * 2000)
    job = add(service, "the curve", State.RUNNING)
    write(service, job, range(1, 5001))
    browser.open(service.page.url)
    browser.until(lambda: browser.run("return $('list').children.length") == 99, "all jobs")
    assert changes_of("the last one") <= alone
    browser.write("filter", "job-4")
    shown = "return [...$('list').children].filter((each) => !each.hidden).length"
    browser.until(lambda: browser.run(shown) == 11, "job-4 and job-40 to job-49")
    browser.run("location.hash = arguments[0]", f"#{job}")
    browser.until(lambda: len(browser.run(CURVES)) == 4, "curves")
    browser.until_text("figures", "5,000")
    points = "const { points } = await import('./charts.js'); return points().length"
    assert 512 <= browser.run(points) <= 1024
    assert browser.run("return $('list').querySelectorAll('*').length") <= 10 * 100


def test_older_jobs_are_shown_when_they_are_asked_for(browser, service):
    """The newest hundred at first; then there is nothing more to ask for."""
    for number in range(103):
        add(service, f"job-{number}")
    many = "return $('list').children.length"
    browser.open(service.page.url)
    browser.until(lambda: browser.run(many) == 100, "the newest jobs")
    browser.until(lambda: browser.run("return !$('older').hidden"), "that older ones can be asked for")
    browser.click("older")
    browser.until(lambda: browser.run(many) == 103, "all jobs")
    assert browser.run("return [...$('list').children].map((each) => Number(each.dataset.id))") == [*range(103, 0, -1)]
    assert browser.run("return $('older').hidden")


def test_a_page_finds_a_service_again_that_was_away(browser, service):
    """It says so meanwhile; then it has what happened since, each job once, and the curve of the run as it is now."""
    job = add(service, state=State.RUNNING)
    write(service, job, range(1, 10))
    browser.open(f"{service.page.url}#{job}")
    browser.until_text("figures", "9")
    service.page.close()
    browser.until_text("link", "does not answer")
    write(service, job, range(10, 78))
    add(service, "meanwhile")
    service.page = service.page_at(urlsplit(service.page.url).port)
    service.page.open()
    browser.until_text("figures", "77")
    browser.until_text("list", "meanwhile")
    assert browser.text("link") == "live"
    assert browser.run("return $('list').children.length") == 2
    assert browser.run("const { points } = await import('./charts.js'); return points().length") == 77


def test_a_token_is_asked_for_once_and_the_read_only_one_cannot_cancel(browser, tmp_path):
    """A wrong one is told; the right one stays in this tab, in no address, and goes to nobody else."""
    with served(tmp_path / "state", guard=Guard(tokens=Tokens.of(full="full", read="read"))) as service:
        add(service)
        browser.open(f"{service.page.url}#1")
        browser.until(lambda: browser.run("return !$('ask').hidden"), "that a token is asked for")
        browser.write("token", "wrong\n")
        browser.until_text("ask-why", "found another one")
        browser.run("$('token').value = ''")
        browser.write("token", "read\n")
        browser.until_text("list", "digits")
        assert browser.run("return $('ask').hidden")
        browser.driver.refresh()
        browser.until_text("name", "digits")
        for _ in range(2):
            browser.click("cancel")
        browser.until_text("cancel-why", "expected the full token")
        assert service.table.get(1).state is State.QUEUED
        assert "read" not in browser.run("return location.href + document.cookie + JSON.stringify(localStorage)")


@pytest.mark.parametrize("scheme", slow_but(["light", "dark"], 1))
@pytest.mark.parametrize("size", slow_but([(PHONE,), (DESK,)], 0), ids=["phone", "desk"])
def test_it_can_be_read_on_a_phone_and_at_a_desk_in_light_and_in_dark(browser, service, size, scheme, tmp_path):
    """Nothing is wider than the screen, what is clicked is large enough, and text stands out from what is behind."""
    add(service, "a-name-that-has-no-place-to-break-" * 4, State.FAILED, "no/place/to/break" * 30)
    job = add(service, state=State.RUNNING)
    write(service, job, range(1, 500))
    for where, id_, text in (("", "list", "digits"), ("#1", "reason", "no/place"), (f"#{job}", "workers", "worker 1")):
        browser.open(service.page.url + where, size, scheme)
        browser.until_text(id_, text)
        browser.driver.save_screenshot(str(tmp_path / f"{scheme}-{size[0]}-{where or 'list'}.png"))
        assert browser.run("return document.documentElement.scrollWidth") <= size[0], where
        heights = "return [...document.querySelectorAll('button, input, select')].map((each) => each.offsetHeight)"
        assert all(height == 0 or height >= 36 for height in browser.run(heights))  # 0: hidden
    back = browser.run("return getComputedStyle(document.documentElement).backgroundColor")
    card = browser.run("return getComputedStyle(document.querySelector('.chart')).backgroundColor")
    assert (luminance(back) > 0.5) == (scheme == "light")
    for selector in ("h1", "#about", "dt", "dd", ".state.running", "#list .line.bad", "td", "small", ".keys"):
        found = browser.run("return getComputedStyle(document.querySelector(arguments[0])).color", selector)
        assert min(contrast(found, back), contrast(found, card)) >= 4.5, (selector, found)
