"""The page, in a headless Chromium."""

import csv
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill.inference.student import StudentClassifier
from potstill.serving.settings import ServeSettings
from tests.inference.conftest import LABELS
from tests.serving.conftest import Service, SlowClassifier, running, wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
SIZES = {"phone": (390, 844), "tablet": (820, 1100), "desktop": (1280, 900)}
SCHEMES = ("light", "dark")
ATTACKS = [
    "<script>document.title = 'hacked'</script>",
    "<img src=x onerror=document.title='hacked'> is <b>old</b>",
    "\"><svg onload=document.title='hacked'>",
    "javascript:document.title='hacked'",
    "&lt;b&gt; &amp; '\" `${document.title='hacked'}`",
]


def find_browser() -> tuple[str, str]:
    """Return the paths of Chromium and its driver; skip where there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("there is no Chromium (apt-get install chromium chromium-driver)")
    return browser, driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    downloads = tmp_path_factory.mktemp("downloads")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.downloads = downloads
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def two(classifier: StudentClassifier) -> Iterator[Service]:
    """A service with a teacher beside the student."""
    with running({"student": classifier, "teacher": classifier}) as service:
        yield service


@pytest.fixture
def page(browser: Any, service: Service) -> Any:
    """The page, opened."""
    return open_page(browser, service)


def open_page(browser: Any, service: Service) -> Any:
    browser.get(service.url)
    wait_until(lambda: find(browser, ".card[data-model=student]"))
    return browser


def find(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def text(browser: Any, selector: str) -> str:
    return browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent ?? ''", selector
    )


def type_text(browser: Any, sentence: str) -> None:
    box = browser.find_element("id", "text")
    box.clear()
    box.send_keys(sentence)


def shown_words(browser: Any, model: str = "student") -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)",
        f".card[data-model={model}] .word",
    )


def messages(browser: Any) -> list[str]:
    """Return what the console has, errors of scripts and of the policy among it."""
    return [entry["message"] for entry in browser.get_log("browser")]


def test_the_verdict_and_every_word_follow_the_typing(
    page: Any, classifier: StudentClassifier
) -> None:
    messages(page)
    for sentence in ("The birds", "The birds near the old tree sings."):
        type_text(page, sentence)
        wait_until(lambda s=sentence: shown_words(page) == s.split())
        explanation = classifier.explain(sentence)
        verdict = text(page, ".card .verdict")
        assert verdict.startswith(explanation.label)
        assert f"{100 * explanation.probabilities.max():.0f} %" in verdict
        scores = [int(s) for s in text_list(page, ".words li .score")]
        assert scores == pytest.approx((100 * explanation.scores).tolist(), abs=1)
        assert text(page, ".words .decisive .word") == explanation.words[explanation.decisive or 0]
        assert len(find(page, "svg circle")) == len(explanation.words)
        assert " ms" in text(page, ".card .about")
    spoken = f"{explanation.label}, "
    wait_until(lambda: text(page, "#spoken").startswith(spoken))
    assert messages(page) == []


def text_list(browser: Any, selector: str) -> list[str]:
    """Return the first text of each element, without what only a screen reader hears."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.firstChild.textContent)",
        selector,
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_text_is_shown_as_it_is_and_never_run(attack: str, page: Any) -> None:
    type_text(page, attack)
    wait_until(lambda: shown_words(page) == attack.split())
    time.sleep(0.1)
    assert page.title == "potstill"
    assert not find(page, ".card script, .card img, .card b, .card svg [onload]")


def test_typing_faster_than_the_service_answers_ends_with_the_latest(
    browser: Any, slow: SlowClassifier
) -> None:
    with running({"student": slow}) as service:
        page = open_page(browser, service)
        word_logits = slow.word_logits

        def slowly(texts: Any) -> Any:
            time.sleep(0.1)
            return word_logits(texts)

        slow.word_logits = slowly  # type: ignore[method-assign]
        type_text(page, "The birds near the tree sing")
        wait_until(lambda: shown_words(page) == ["The", "birds", "near", "the", "tree", "sing"])


def test_an_example_is_a_click_away(browser: Any, classifier: StudentClassifier) -> None:
    student = SlowClassifier(classifier)
    student.classes_ = classifier.classes_.copy().astype(object)
    student.classes_[:] = ["unacceptable", "acceptable"]
    with running({"student": student}) as service:
        page = open_page(browser, service)
        wait_until(lambda: bool(find(page, "#examples button")))
        example = find(page, "#examples button")[1]
        sentence = example.text
        example.click()
        wait_until(lambda: shown_words(page) == sentence.split())


def test_a_file_comes_back_as_csv(page: Any, classifier: StudentClassifier, tmp_path: Path) -> None:
    sentences = ['He said "no", twice.', "=1+1", "Naïve «birds» sing.", "x" * 10_001]
    sentences += [f"Bird {i} sings." for i in range(250)]
    file = tmp_path / "sentences.txt"
    file.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    page.find_element("id", "file").send_keys(str(file))
    result = page.downloads / "sentences-predicted.csv"
    wait_until(result.exists)
    rows = list(csv.DictReader(io.StringIO(result.read_text(encoding="utf-8"))))
    assert [row["text"] for row in rows] == sentences
    assert (rows[3]["label"], rows[3]["note"]) == ("", "too long")
    del rows[3], sentences[3]
    assert [row["label"] for row in rows] == classifier.predict(sentences).tolist()
    best = classifier.predict_proba(sentences).max(1)
    found = [float(row[row["label"]]) for row in rows]
    assert found == pytest.approx(best.tolist(), abs=1e-4)
    assert "254 texts are classified" in text(page, "#file-status")
    assert set(LABELS) < rows[0].keys()


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("a.csv", 'label,Text\r\ngood,"Two\r\nlines, ""so"""\r\nbad,One.\r\n', 2),
        ("a.tsv", "sentence\tlabel\nOne.\tgood\n", 1),
        ("b.csv", "review,label\nOne.,good\n", "has no column text or sentence"),
        ("c.txt", "\ufeff \n\n", "has no text"),
    ],
)
def test_tables_are_read_and_others_refused(
    name: str, body: str, expected: int | str, page: Any, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(body.encode())
    page.find_element("id", "file").send_keys(str(file))
    words = f"{expected} texts are classified" if isinstance(expected, int) else expected
    wait_until(lambda: words in text(page, "#file-status"))


def test_a_dropped_file_is_taken(page: Any) -> None:
    page.execute_script(
        """
        const data = new DataTransfer();
        data.items.add(new File(["One bird sings.\\n"], "dropped.txt", {type: "text/plain"}));
        document.body.dispatchEvent(
          new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        """
    )
    wait_until(lambda: "1 texts are classified" in text(page, "#file-status"))


def test_the_keyboard_is_enough(page: Any, tmp_path: Path) -> None:
    """Every control is reached by Tab, in the order of the page, and shows that it is."""
    assert page.switch_to.active_element.get_attribute("id") == "text"
    reached = []
    for _ in range(12):
        active = page.switch_to.active_element
        reached.append(active.get_attribute("id") or active.tag_name)
        ring = page.execute_script(
            "const s = (e) => getComputedStyle(e).outlineStyle, a = document.activeElement;"
            "return s(a) !== 'none' || (a.nextElementSibling && s(a.nextElementSibling) !== 'none')"
        )
        assert ring or active.tag_name == "body", reached[-1]
        webdriver.ActionChains(page).send_keys(webdriver.Keys.TAB).perform()
    assert reached.index("text") < reached.index("file") < reached.index("a")


def test_a_token_is_asked_for_and_kept(browser: Any, classifier: StudentClassifier) -> None:
    with running({"student": classifier}, ServeSettings(token="sesame")) as service:
        browser.get(service.url)
        wait_until(lambda: browser.find_element("id", "token").is_displayed())
        assert "token" in text(browser, "#error")
        browser.find_element("id", "token").send_keys("sesame", webdriver.Keys.ENTER)
        wait_until(lambda: bool(find(browser, ".card[data-model=student]")))
        assert not browser.find_element("id", "token").is_displayed()
        open_page(browser, service)
        type_text(browser, "The birds sing.")
        wait_until(lambda: len(shown_words(browser)) == 3)


def test_a_service_that_is_gone_is_said(browser: Any, classifier: StudentClassifier) -> None:
    with running({"student": classifier}) as service:
        page = open_page(browser, service)
    type_text(page, "The birds sing.")
    wait_until(lambda: "can't be reached" in text(page, "#error"))


def test_the_words_of_a_model_without_a_word_layer_are_shown_too(
    browser: Any, wordless_student: Path
) -> None:
    with running({"student": StudentClassifier(wordless_student)}) as service:
        page = open_page(browser, service)
        type_text(page, "The birds sing.")
        wait_until(lambda: text(page, ".card .verdict").split(" ")[0] in LABELS)
        assert shown_words(page)


def luminance(colour: list[float]) -> float:
    parts = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# For every element with text of its own: the colours of text and of what is behind it.
COLOURS = """
const rgb = (s) => s.match(/[\\d.]+/g).map(Number);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll('body *')].filter((e) =>
  [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.checkVisibility()
  && !['SCRIPT', 'STYLE'].includes(e.tagName)
).map((e) => {
  const style = getComputedStyle(e);
  return [e.textContent.slice(0, 30), rgb(e.ownerSVGElement ? style.fill : style.color), behind(e)];
});
"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_is_legible(size: str, scheme: str, browser: Any, two: Service) -> None:
    """On every screen, light and dark: nothing is wider than the screen, buttons can be touched,
    and the contrast is WCAG's AA, 4.5 to 1. The six colours of classes are checked too."""
    width, height = SIZES[size]
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = open_page(browser, two)
        type_text(page, "The birds near the old tree " + "sings" * 40)
        for model in ("student", "teacher"):
            wait_until(lambda m=model: len(shown_words(page, m)) >= 6)
        page.find_element("id", "file").send_keys(str(Path(__file__)))  # its status has text, too
        wait_until(lambda: "classified" in text(page, "#file-status"))
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for button in find(page, "button, .button"):
            assert not button.is_displayed() or button.size["height"] >= 24
        for label, ink, paper in page.execute_script(COLOURS):
            light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (label, ink, paper)
        for i in range(6):
            page.execute_script(f"document.querySelector('.verdict').style.color = 'var(--c{i})'")
            (ink, paper), *_ = [row[1:] for row in page.execute_script(COLOURS) if "%" in row[0]]
            light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, i
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_is_asked_of_anybody_else(browser: Any, service: Service) -> None:
    import json

    browser.get_log("performance")
    page = open_page(browser, service)
    type_text(page, "The birds sing.")
    wait_until(lambda: len(shown_words(page)) == 3)
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert urls
    assert all(url.startswith((service.url, "data:", "blob:")) for url in urls), urls


def test_a_screen_reader_is_told_what_things_are(page: Any) -> None:
    type_text(page, "The birds sing.")
    wait_until(lambda: len(shown_words(page)) == 3)
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = {
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if node.get("role") and node.get("name") and not node["ignored"]
    }
    roles = {role for role, _ in names}
    assert ("textbox", "Your text") in names
    assert ("heading", "A whole file") in names
    assert {"image", "list", "button", "link"} <= roles | {"button"}
    assert all(name for role, name in names if role in ("button", "link", "textbox", "image"))
    assert page.find_element("id", "spoken").get_attribute("aria-live") == "polite"
