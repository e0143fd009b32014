"""The review server: what it serves, what it keeps through kills, and what it does not let out."""

import random
import threading
import time
from pathlib import Path

import httpx
import pytest
from browser import a_row, an_id, default_recipe, write_rows
from runs import rows_of
from served import Served, review

from curation.reviews import NAME, read_reviews

COUNT = 40


def said(number: int) -> dict[str, str]:
    return {"caption": f"a disc {number}", "caption_status": "ok"}


def made_up(folder: Path, count: int = COUNT) -> Path:
    """Write an output whose clips have rising motion; the rules reject the lower half."""
    recipe = default_recipe(f'rules={{"motion": {{"min": {count / 2}}}}}')
    rows = [
        a_row(recipe, n, motion=float(n), start_s=float(n), end_s=n + 5.0, duration_s=5.0) | said(n)
        for n in range(count)
    ]
    return write_rows(folder / "out", recipe, rows)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return made_up(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def running(out: Path):
    started = review(out)
    yield started
    assert started.stop() == 0


@pytest.fixture
def server(running: Served, out: Path) -> Served:
    """Return a server to which nobody has said anything yet."""
    (out / NAME).unlink(missing_ok=True)
    return running


def ids(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {clip["clip_id"] for clip in answer.json()["clips"]}


def find(server: Served, **values) -> set[str]:
    return ids(server.client.get("/api/clips", params={"limit": 200} | values))


def say(server: Served, number: int, **values) -> dict:
    answer = server.client.post("/api/reviews", json={"clip_id": an_id(number), "by": "ann"} | values)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_clips_are_found_by_verdict_words_and_expressions(server: Served) -> None:
    every = {an_id(n) for n in range(COUNT)}
    assert find(server) == every
    assert find(server, show="accepted") == {an_id(n) for n in range(20, COUNT)}
    assert find(server, where="motion > 37") == {an_id(38), an_id(39)}
    assert find(server, words="disc 7") >= {an_id(7)}
    assert find(server, words="film-12.mp4") == {an_id(12)}
    say(server, 3, review="keep", tags=["lovely"])
    say(server, 30, review="drop")
    assert find(server, show="undecided") == every - {an_id(3), an_id(30)}
    assert find(server, show="kept") == find(server, words="lovely") == {an_id(3)}
    assert find(server, show="accepted") == {an_id(n) for n in (3, *range(20, COUNT))} - {an_id(30)}
    page = server.client.get("/api/clips", params={"offset": 38, "limit": 10}).json()
    assert (page["total"], len(page["clips"])) == (COUNT, 2)
    wrong = server.client.get("/api/clips", params={"where": "moton > 3"})
    assert wrong.status_code == 400
    assert "did you mean 'motion'" in wrong.json()["error"]["message"]


def test_the_search_box_orders_by_nearness_and_goes_with_the_filters(server: Served) -> None:
    def found(**values) -> tuple[str | None, list[str]]:
        page = server.client.get("/api/clips", params={"limit": 200} | values).json()
        return page["by"], [clip["clip_id"] for clip in page["clips"]]

    assert found()[0] is None and set(found()[1]) == find(server)
    by, clips = found(like="Disc 12")
    assert by == "words" and clips[0] == an_id(12) and len(clips) == COUNT, "every caption has one of the words"
    assert found(like="12", show="accepted") == ("words", []), "the rules reject that one"
    say(server, 7, caption="a red balloon at night")
    assert found(like="red night balloon") == ("words", [an_id(7)]), "what people write is found at once"
    assert found(like="balloon", words="film-7", where="motion < 8") == ("words", [an_id(7)])
    wrong = server.client.get("/api/clips", params={"like": an_id(7)})
    assert wrong.status_code == 400 and "neither an embedding nor a temporal hash" in wrong.json()["error"]["message"]
    assert server.client.get("/api/clips", params={"like": "/etc/passwd"}).json()["total"] == 0, "no file is opened"


@pytest.mark.slow
def test_a_word_shows_at_once_and_the_table_follows_at_the_end(tmp_path: Path) -> None:
    out = made_up(tmp_path)
    server = review(out)
    told = say(server, 3, review="keep")
    assert (told["clip"]["status"], told["clip"]["reasons"], told["clip"]["review_by"]) == ("accepted", [], "ann")
    assert told["counts"]["kept"] == 1
    assert say(server, 3, caption="by hand")["clip"]["review"] == "keep", "what is not sent stays"
    assert rows_of(out)[an_id(3)]["status"] == "rejected"
    assert server.stop() == 0
    row = rows_of(out)[an_id(3)]
    assert (row["status"], row["review"], row["caption_by_hand"]) == ("accepted", "keep", "by hand")


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"clip_id": "no such", "review": "keep"}, 400),
        ({"clip_id": an_id(1), "review": "maybe"}, 400),
        ({"clip_id": an_id(1)}, 422),
        ({"clip_id": an_id(1), "review": "keep", "more": 1}, 422),
        ({"clip_id": an_id(1), "caption": ["x"]}, 422),
    ],
)
def test_what_is_no_review_is_refused_and_nothing_is_kept(server: Served, out: Path, values: dict, status: int) -> None:
    answer = server.client.post("/api/reviews", json=values)
    assert answer.status_code == status, answer.text
    assert "message" in answer.json()["error"]
    assert not read_reviews(out).clips


def test_only_files_of_the_output_are_sent(server: Served) -> None:
    for name in ("..%2f..%2fetc%2fpasswd", "../recipe.yaml", an_id(1)):
        for kind in (f"/media/clip/{name}", f"/media/picture/{name}/0", f"/page/{name}"):
            assert server.client.get(kind).status_code in (404, 422)
    page = server.client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    other = {"Content-Type": "text/plain"}
    form = server.client.post("/api/reviews", content=f'{{"clip_id": "{an_id(1)}", "review": "drop"}}', headers=other)
    assert form.status_code == 422, "what another site's page could send without being asked is not taken"
    assert server.client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_the_agreement_of_rules_and_people(server: Served) -> None:
    for number in range(COUNT):
        say(server, number, review="drop" if number < 10 else "keep")
    (motion,) = [one for one in server.client.get("/api/agreement").json() if one["column"] == "motion"]
    assert (motion["rejected"], motion["dropped"], motion["missed"]) == (20, 10, 0)
    assert 9 < motion["suggested"] <= 10


@pytest.mark.chaos
def test_a_thousand_verdicts_of_two_people_through_kills_are_all_there(tmp_path: Path) -> None:
    """Two clients say what they have to say again until the server has answered; the server is killed now and then."""
    out = made_up(tmp_path, 1000)
    servers = [review(out)]
    lock, ends = threading.Lock(), threading.Event()
    words = {an_id(n): ("keep", "ann") if n % 2 else ("drop", "bob") for n in range(1000)}

    def person(name: str) -> None:
        for clip_id in [clip_id for clip_id, (_, by) in words.items() if by == name]:
            while True:
                with lock:
                    address = servers[-1].address
                try:
                    values = {"clip_id": clip_id, "by": name, "review": words[clip_id][0]}
                    if httpx.post(f"{address}/api/reviews", json=values, timeout=30).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.05)

    def killer() -> None:
        dice = random.Random(0)
        while not ends.wait(dice.uniform(1.0, 3.0)):
            with lock:
                servers[-1].kill()
                servers.append(review(out))

    threads = [threading.Thread(target=person, args=(name,)) for name in ("ann", "bob")]
    kills = threading.Thread(target=killer)
    for thread in (*threads, kills):
        thread.start()
    for thread in threads:
        thread.join()
    ends.set()
    kills.join()
    assert servers[-1].stop() == 0
    assert len(servers) > 2, "it was killed at least twice"
    said = {clip_id: (one.review, one.by) for clip_id, one in read_reviews(out).clips.items()}
    assert said == words
    table = rows_of(out)
    assert {clip_id: (row["review"], row["review_by"]) for clip_id, row in table.items()} == words
    assert {row["status"] for row in table.values() if row["review"] == "keep"} == {"accepted"}
