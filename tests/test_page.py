"""The report's page in a real browser, from planted runs: what it shows, and that its controls do what they say."""

import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SIX, report
from PIL import Image
from playwright.sync_api import Browser, Page
from test_report import plant

from ganbench import datasets
from ganbench.report import latex
from ganbench.report.comparability import NotComparable
from ganbench.report.figures import gradients, samples, svg, training
from ganbench.report.pages import overview
from ganbench.report.pages.sweep import write
from ganbench.report.statistics import iqm_interval
from ganbench.report.study import load_study
from ganbench.report.tables import csv_of_results, markdown
from ganbench.training import pictures

pytestmark = pytest.mark.slow

POINTS = (0, 1600, 3200, 4800, 6400)
STEPS = (0, *(2**k for k in range(11)))


def enrich(run: Path, start: int = 0, points: tuple[int, ...] = POINTS, recall: float = 0.9) -> None:
    """Give a planted run what a long one has: a score curve, diversity, classes and other samples."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    final = next((row["fd_lenet"] for row in rows if row["images"] == 6400 and "fd_lenet" in row), None)
    enriched = [row for row in rows if "fd_lenet" not in row]
    for i, images in enumerate(points):
        share = i / (len(points) - 1)
        score = 20 * ((final or 10) / 20) ** share
        if final is None and images == 6400:
            continue
        classes = [0.1 + 0.05 * math.sin(k + start) for k in range(10)]
        enriched.append({
            "images": images, "fd_lenet": score, "recall": recall * share, "coverage": 0.8 * share, "density": 0.6,
            "memorization": 0.9, "kid": None, "histogram": classes,
        })  # fmt: skip
    enriched.sort(key=lambda row: row["images"])
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in enriched))
    status = json.loads((run / "status.json").read_text())
    status["real_reference"] |= {"coverage": 0.97, "density": 1.0, "memorization": 0.85, "histogram": [0.1] * 10}
    (run / "status.json").write_text(json.dumps(status))
    for images in points:
        paint(start, images).save(run / "samples" / f"{images:09d}.png")


def paint(start: int, images: int) -> Image.Image:
    """Return one shade of gray per image, by its run and the real images seen."""
    return Image.new("L", (256, 256), gray(start, images))


def gray(start: int, images: int) -> int:
    return 20 + 40 * start + images // 200


def probe(run: Path, rates: dict[str, float], images: tuple[int, ...] = (0, 3200)) -> None:
    """Write probes in which each loss's gradient changes by a factor for each doubling of the critic's updates."""
    lines = []
    for loss, rate in rates.items():
        for seen in images:
            for critic in ("onward", "scratch"):
                for k in STEPS:
                    norm = 3 * rate ** math.log2(k + 1)
                    probed = {"images": seen, "critic": critic, "steps": k, "loss": loss}
                    result = {"g_norm": norm, "snr": 2.0, "saturated": None, "d_slope_fake": 0.5, "critic_auc": 0.9}
                    lines.append(json.dumps(probed | result | {"cosine": 0.7}))
    (run / "probes.jsonl").write_text("\n".join(lines) + "\n")


RATES = {"gan": {"gan": 1.1, "minimax": 0.4}, "wgan-gp": {"wgan": 1.0}, "hinge": {"hinge": 0.3}}
FINALS = {"gan": [4.0, 5.0, 6.0], "wgan-gp": [2.0, 2.5, 3.0], "hinge": [3.0, 9.0, None]}


def plant_rich(folder: Path) -> None:
    for number, (loss, finals) in enumerate(FINALS.items()):
        for seed, final in enumerate(finals):
            run = plant(folder, loss, seed, final, speed=50.0 if loss == "wgan-gp" else 100.0)
            enrich(run, number, recall=0.3 if loss == "hinge" else 0.9)
            probe(run, RATES[loss])
    (folder / "hinge-s0/samples/000006400.png").unlink()


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    plant_rich(folder)
    write(folder)
    return folder


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six methods at ten seeds, eleven grids of digits in noise each, and a hundred records of losses."""
    folder = tmp_path_factory.mktemp("sixty")
    rng = np.random.default_rng(0)
    for loss in SIX.split(","):
        first = plant(folder, loss, 0, float(rng.uniform(1, 9)))
        enrich(first, 0, tuple(range(0, 6401, 640)))
        record_losses(first, rng)
        for seed in range(1, 10):
            plant_copy(first, seed, float(rng.uniform(1, 9)))
        for file in (first / "samples").iterdir():  # of the one seed that is shown
            digits_in_noise(rng).save(file)
    write(folder)
    return folder


def record_losses(run: Path, rng: np.random.Generator) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("d_loss", "g_loss", "d_penalty", "d_real", "d_fake", "d_grad_norm", "g_grad_norm")
    rows += [{"images": 64 * i} | dict(zip(names, rng.uniform(1, 2, 7), strict=True)) for i in range(100)]
    rows.sort(key=lambda row: row["images"])
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def plant_copy(run: Path, seed: int, final: float) -> None:
    """Copy a run of seed 0 as one of another seed: composing its configuration again would take longer."""
    copy = run.with_name(run.name.replace("-s0", f"-s{seed}"))
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("samples"))
    for name, old, new in (
        ("config.yaml", "seed: 0\n", f"seed: {seed}\n"),
        ("footing.json", '"g0"', f'"g{seed}"'),
        ("status.json", '"score": ', f'"score": {final}, "of_seed_0": '),
    ):
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new))


def digits_in_noise(rng: np.random.Generator) -> Image.Image:
    digits = datasets.mnist5k().train
    noise = torch.from_numpy(rng.integers(0, 80, (64, 1, 32, 32)))
    chosen = digits[rng.integers(len(digits), size=64)].long()
    return pictures.grid((chosen // 2 + noise).to(torch.uint8))


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages; fail at the end if one wrote to its console or made a request."""
    console, requests, contexts = [], [], []

    def go(file: Path, width: int = 1280, **settings: object) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert console == []
    assert requests and all(url.startswith(("file:", "data:")) for url in requests)


SECTIONS = ["verdict", "results", "curves", "differences", "vanishing", "diversity", "samples", "training", "runs"]


def test_the_page_holds_itself_and_every_section(rich: Path, opened) -> None:
    assert "http" not in (rich / "report.html").read_text()
    page = opened(rich / "report.html")
    assert page.locator("h1").inner_text() == "3 GAN methods on mnist5k"
    assert page.locator("main > section").evaluate_all("all => all.map(s => s.id)") == SECTIONS
    links = page.locator("nav a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == [f"#{name}" for name in SECTIONS]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth === 256)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    words = page.locator("svg").evaluate_all(
        "all => all.map(s => [s.getAttribute('role'), s.getAttribute('aria-label')])"
    )
    assert all(role == "img" and len(label.split()) > 5 for role, label in words)


def test_the_switch_shows_one_axis(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    shown = page.locator(".axes figure:visible")
    drawn = {"images": "real images seen", "steps": "generator updates", "t_train": "training seconds"}
    assert shown.count() == 1 and drawn["images"] in shown.text_content()
    page.get_by_role("radio", name="training seconds").click()
    assert shown.count() == 1 and drawn["t_train"] in shown.locator("svg").text_content()
    page.keyboard.press("ArrowUp")
    assert shown.count() == 1 and drawn["steps"] in shown.locator("svg").text_content()


def column(page: Page, table: str, number: int) -> list[str]:
    return page.locator(f"#{table} tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_sort_and_what_is_missing_comes_last(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    head = page.locator("#results-table th", has_text="median")
    assert column(page, "results-table", 3) == ["2.5", "5", "9"]
    head.get_by_role("button").click()
    assert (head.get_attribute("aria-sort"), column(page, "results-table", 3)) == ("ascending", ["2.5", "5", "9"])
    page.keyboard.press("Enter")  # the button has the focus
    assert (head.get_attribute("aria-sort"), column(page, "results-table", 3)) == ("descending", ["9", "5", "2.5"])
    assert column(page, "results-table", 1) == ["hinge", "gan", "wgan-gp"]
    other = page.locator("#results-table th", has_text="seconds")
    other.get_by_role("button").focus()
    page.keyboard.press("Space")
    assert column(page, "results-table", 8) == ["64", "64", "128"]  # as text, 128 would come first
    assert (head.get_attribute("aria-sort"), other.get_attribute("aria-sort")) == ("none", "ascending")
    page.locator("#runs-table th", has_text="folder").get_by_role("button").click()
    assert column(page, "runs-table", 1)[:2] == ["gan-s0", "gan-s1"]
    page.locator("#probed th", has_text="new critic, 3,200").get_by_role("button").click()
    assert column(page, "probed", 1) == ["hinge", "gan, minimax (diagnostic)", "wgan-gp", "gan"]
    page.locator("#sides th", has_text="recall").get_by_role("button").click()
    assert page.locator("#sides tfoot th").inner_text() == "real data"
    assert column(page, "sides", 1)[0] == "hinge"


def shown_methods(page: Page, figure: str) -> list[str]:
    """Return the methods that something visible in a figure belongs to."""
    shown = "all => all.filter(e => getComputedStyle(e).display !== 'none').map(e => e.dataset.method)"
    return sorted(set(page.locator(f"{figure} [data-method]").evaluate_all(shown)))


def test_a_click_on_the_legend_hides_a_method_in_every_figure(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    every = ["gan", "hinge", "wgan-gp"]
    places = ("#results svg", "#curves figure:visible svg", "#vanishing", "#diversity", "#samples", "#training")
    assert all(shown_methods(page, place) == every for place in places)
    page.locator("#curves").get_by_role("button", name="wgan-gp").click()
    assert all(shown_methods(page, place) == ["gan", "hinge"] for place in places)
    pressed = "all => all.map(b => [b.dataset.toggle, b.ariaPressed])"
    toggles = page.locator("[data-toggle]").evaluate_all(pressed)
    assert {tuple(toggle) for toggle in toggles} == {("gan", "true"), ("hinge", "true"), ("wgan-gp", "false")}
    page.locator("#diversity").get_by_role("button", name="gan", exact=True).focus()
    page.keyboard.press("Enter")
    assert all(shown_methods(page, place) == ["hinge"] for place in places)
    page.locator("#results").get_by_role("button", name="Show all").click()
    assert all(shown_methods(page, place) == every for place in places)
    assert page.get_by_role("button", name="Show all").count() == 0
    page.locator("#training").get_by_role("button", name="gan", exact=True).dblclick()
    assert all(shown_methods(page, place) == ["gan"] for place in places)
    assert len(column(page, "results-table", 1)) == 3


def test_the_address_remembers_what_is_hidden(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    for name in ("gan", "hinge"):
        page.locator("#curves").get_by_role("button", name=name, exact=True).click()
    assert page.url.endswith("report.html#?hide=gan&hide=hinge")
    page.get_by_role("link", name="Samples", exact=True).click()
    page.wait_for_url("**/report.html#samples?hide=gan&hide=hinge")
    page.goto("about:blank")
    page.goto(f"{(rich / 'report.html').as_uri()}#samples?hide=hinge&hide=unknown")
    assert shown_methods(page, "#results svg") == ["gan", "wgan-gp"]
    page.wait_for_function("document.getElementById('samples').getBoundingClientRect().top < 200")
    page.locator("#results").get_by_role("button", name="hinge").click()
    assert page.url.endswith("#samples") and shown_methods(page, "#results svg") == ["gan", "hinge", "wgan-gp"]


UNMARKED = """() => [...document.querySelectorAll('svg [style*="var(--c"]')].filter(e =>
  /var\\(--c\\d/.test(e.getAttribute('style')) && !e.closest('[data-method]') && !e.closest('.closed-form')).length"""


def test_everything_in_a_methods_color_is_the_methods(rich: Path, sixty: Path, opened) -> None:
    for folder in (rich, sixty):
        assert opened(folder / "report.html").evaluate(UNMARKED) == 0


def test_a_figure_is_saved_as_a_file_that_stands_alone(rich: Path, opened) -> None:
    """In light colors, although the page is dark, and without the method that is hidden."""
    page = opened(rich / "report.html", color_scheme="dark")
    page.locator("#curves").get_by_role("button", name="gan", exact=True).click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save as SVG: fd_lenet vs. real images seen").click()
    assert saving.value.suggested_filename == f"{rich.name}-scores-images.svg"
    file = rich.parent / "saved.svg"
    saving.value.save_as(file)
    root = ElementTree.parse(file).getroot()
    assert root.tag.endswith("/svg}svg") and float(root.get("width")) == pytest.approx(5.2 * 72)
    assert "var(" not in file.read_text() and "real images seen" in file.read_text()
    drawn = opened(file, color_scheme="dark")
    picture = Image.open(io.BytesIO(drawn.screenshot())).convert("RGB")
    colors = {"#{:02x}{:02x}{:02x}".format(*color) for _, color in picture.getcolors(1_000_000)}
    assert {svg.CARD, svg.COLORS[1], svg.COLORS[2]} <= colors and svg.COLORS[0] not in colors


def test_every_figure_can_be_saved(rich: Path) -> None:
    page = (rich / "report.html").read_text()
    names = re.findall(r'data-file="([^"]+)"', page)
    assert page.count("<svg") == page.count("Save as SVG: ") == len(set(names)) == len(names) > 15


def pasted(page: Page) -> str:
    """Return what the clipboard has."""
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), { id: 'pasted' }))")
    page.locator("#pasted").focus()
    page.keyboard.press("Control+v")
    text = page.locator("#pasted").input_value()
    page.evaluate("document.getElementById('pasted').remove()")
    return text


def test_the_table_is_copied(rich: Path, opened) -> None:
    page, study = opened(rich / "report.html"), load_study(rich)
    for name, expected in (("CSV", csv_of_results(study)), ("LaTeX", latex.results(study))):
        button = page.get_by_role("button", name=f"Copy {name}")
        button.click()
        assert pasted(page) == expected and page.locator("textarea:visible").count() == 0
        button.wait_for()
        assert button.evaluate("b => { b.click(); b.click(); return b.textContent; }") == "Copied"
        button.wait_for()
    page.evaluate("document.execCommand = () => false")  # as where a browser does not allow it
    page.get_by_role("button", name="Copy CSV").click()
    assert page.get_by_label("The table as CSV").is_visible()
    assert page.evaluate("getSelection().toString()") == csv_of_results(study)


def test_runs_link_to_their_folders(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    links = page.locator("#runs-table a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert len(links) == 9 and all((rich / link / "status.json").exists() for link in links)


SEEN = "words => document.getElementById('seen').textContent === words"
PIXELS = """() => [...document.querySelectorAll('.grids img')].map(img => {
  const c = document.createElement('canvas').getContext('2d'); c.drawImage(img, 0, 0);
  return c.getImageData(9, 9, 1, 1).data[0];
})"""


def settled(page: Page) -> list[int]:
    page.evaluate("Promise.all([...document.images].map(img => img.decode()))")
    return page.evaluate(PIXELS)


def test_the_slider_moves_every_picture(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    order = ["wgan-gp", "gan", "hinge"]  # methods by score; planted as 1, 0 and 2
    captions = page.locator(".history figcaption")
    assert [words.split(" ")[0] for words in captions.all_inner_texts()] == order
    # hinge has no samples at the end, and shows its last
    assert settled(page) == [gray(1, 6400), gray(0, 6400), gray(2, 4800)]
    assert "4,800 images" in captions.nth(2).inner_text()
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    assert settled(page) == [gray(1, 0), gray(0, 0), gray(2, 0)]
    page.keyboard.press("ArrowRight")
    assert settled(page) == [gray(1, 1600), gray(0, 1600), gray(2, 1600)]
    assert page.locator("#seen").inner_text() == "1,600 images"
    assert captions.nth(0).inner_text() == "wgan-gp fd_lenet 11.2, 1,600 images"  # 20 (2 / 20)^(1/4)
    assert page.locator(".history img").nth(0).get_attribute("alt").endswith("after 1,600 images")
    page.keyboard.press("End")
    assert settled(page) == [gray(1, 6400), gray(0, 6400), gray(2, 4800)]


def test_play_runs_to_the_end_and_stops(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    button = page.locator("#play")
    button.click()
    assert page.locator("#seen").inner_text() == "0 images" and button.inner_text() == "Pause"
    page.wait_for_function(SEEN, arg="6,400 images")
    assert button.inner_text() == "Play"


INKS = "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('#results svg text')).fill]"


def test_light_and_dark(rich: Path, opened) -> None:
    page = opened(rich / "report.html", color_scheme="light")
    light = page.evaluate(INKS)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(INKS)
    assert all(a != b for a, b in zip(light, dark, strict=True))
    page.reload()
    assert page.evaluate(INKS) == dark  # as was asked for
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(INKS) == light
    assert opened(rich / "report.html", color_scheme="dark").evaluate(INKS) == dark


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colors_have_contrast(rich: Path) -> None:
    """WCAG 2 AA: 4.5 for text, 3 for lines; on cards, light and dark."""
    sheets = re.findall(r"color-scheme: (?:light|dark);[^}]*", (rich / "report.html").read_text())
    assert len(sheets) == 3
    for sheet in sheets:
        tokens = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", sheet))
        least = dict.fromkeys(("ink", "soft", "accent", "bad"), 4.5) | {f"c{i}": 3 for i in range(8)}
        for name, minimum in least.items():
            assert contrast(tokens[name], tokens["card"]) >= minimum, (name, tokens[name])
        assert contrast(tokens["amber"], tokens["amber-paper"]) >= 4.5


LETTERS = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(t => scale * parseFloat(getComputedStyle(t).fontSize));
})"""


LOW = """() => [...document.querySelectorAll('button, summary, nav a, .switch label, #slider, #runs-table a')]
  .filter(e => e.offsetParent && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"""


def test_on_a_phone(rich: Path, opened) -> None:
    page = opened(rich / "report.html", width=390)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    sizes = [size for size in page.evaluate(LETTERS) if size]
    assert len(sizes) > 100 and min(sizes) >= 8
    low = page.evaluate(LOW)
    assert low == []
    long_name = "'a_method_of_ones_own_'.repeat(5)"
    for part in (".lead", "h1", ".legend li span:last-child", "section p:not(.lead)"):
        page.evaluate(f"document.querySelectorAll('{part}').forEach(e => {{ e.textContent = {long_name}; }})")
        assert page.evaluate("document.documentElement.scrollWidth <= 390"), part


def test_in_print(rich: Path, opened) -> None:
    page = opened(rich / "report.html", color_scheme="dark")
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    page.locator("#training summary").first.click()
    page.locator("#curves").get_by_role("button", name="hinge").click()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator(".axes figure:visible").count() == 3
    for control in ("nav", "#play", "#slider", "fieldset", ".save", ".copies"):
        assert page.locator(control).first.is_hidden(), control
    assert page.locator("#training svg:visible").count() == 2  # of the part that is open, but for the hidden method
    page.wait_for_function(SEEN, arg="6,400 images")
    assert settled(page) == [gray(1, 6400), gray(0, 6400), gray(2, 4800)]
    assert page.locator(".history:visible").count() == 2
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)"
    page.emulate_media(media="screen")
    page.wait_for_function(SEEN, arg="0 images")
    assert settled(page) == [gray(1, 0), gray(0, 0), gray(2, 0)]


def test_without_javascript(rich: Path, opened) -> None:
    page = opened(rich / "report.html", java_script_enabled=False)
    assert page.locator(".axes figure:visible").count() == 3
    assert page.locator(".history img:visible").count() == 3
    assert page.locator(".control:visible").count() == 0
    assert page.locator("svg [data-method]").count() > 50 and page.locator("svg .off").count() == 0
    page.locator("#training summary").first.click()
    assert page.locator("#training svg:visible").count() == 3


def test_two_reports_are_the_same(rich: Path) -> None:
    before = (rich / "report.html").read_bytes()
    write(rich)
    assert (rich / "report.html").read_bytes() == before


def test_a_method_has_one_color(rich: Path) -> None:
    study = load_study(rich)
    assert study.color_index == {"gan": 0, "hinge": 1, "wgan-gp": 2}
    for figures in (training.by_method(study, ("d_loss",)), training.histograms(study)):
        for figure in figures:
            assert set(re.findall(r"var\(--c(\d)\)", figure.svg)) == {str(study.color_index[figure.title])}


def test_every_seed_is_a_dot(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    dots = page.locator("svg[aria-label^='Final'] use[style*='--card']")
    assert dots.count() == 8  # nine runs, of which one has no score


def test_bands_need_four_scores(rich: Path, tmp_path: Path) -> None:
    curves = load_study(rich).score_curves
    assert curves["gan"].images == list(POINTS)
    assert curves["gan"].iqm == pytest.approx([20 * (5 / 20) ** (i / 4) for i in range(5)], rel=0.01)
    assert all(map(math.isnan, curves["gan"].low))
    for seed, final in enumerate([4.0, 5.0, 6.0, 7.0]):
        enrich(plant(tmp_path, "gan", seed, final))
        enrich(plant(tmp_path, "hinge", seed, final if seed < 2 else None))
    curves = load_study(tmp_path).score_curves
    assert (curves["gan"].low[-1], curves["gan"].high[-1]) == iqm_interval([4, 5, 6, 7])
    assert math.isnan(curves["hinge"].low[-1]) and curves["hinge"].iqm[-1] == math.inf
    assert math.isfinite(curves["hinge"].low[-2])


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.009, 0.5], "vanishes"),
        ([0.009, 0.5, 0.5], "stays"),
        ([0.01, 0.01], "stays"),
        ([100.0, 100.0], "stays"),
        ([101.0, 1.0], "explodes"),
        ([0.0], "vanishes"),
        ([], "undefined"),
    ],
)
def test_the_rule_of_the_probe(ratios: list[float], expected: str) -> None:
    assert gradients.verdict(ratios) == expected


def test_probes_are_grouped_by_method_critic_and_images(rich: Path) -> None:
    rows = [[str(cell) for cell in row] for row in gradients.table(gradients.probe_results(load_study(rich)))]
    assert len(rows) == 16
    assert rows[0] == ["wgan-gp", "0", "run's critic", "1", "stays", "0.9", "–", "0.5", "2", "0.7"]
    shown = {row[0]: row[3:5] for row in rows if row[1:3] == ["3,200", "new critic"]}
    assert shown["gan"] == ["2.59", "stays"]  # 1.1 by doubling, log2(1025) doublings
    assert shown["gan, minimax (diagnostic)"] == ["0.000105", "vanishes"]
    assert shown["hinge"] == ["5.89e-06", "vanishes"]


def test_the_page_says_what_vanishes(rich: Path, opened) -> None:
    page = opened(rich / "report.html")
    headers = page.locator("#probed thead th").all_inner_texts()
    assert headers == ["method", "run's critic, 0", "run's critic, 3,200", "new critic, 0", "new critic, 3,200"]
    verdicts = dict(zip(column(page, "probed", 1), column(page, "probed", 5), strict=True))
    assert verdicts == {
        "wgan-gp": "stays (×1)",
        "gan": "stays (×2.6)",
        "gan, minimax (diagnostic)": "vanishes (×0.0001)",
        "hinge": "vanishes (×5.9e-06)",
    }
    assert "less than 0.01 of its norm" in page.locator("#vanishing").inner_text()
    assert page.locator("#vanishing svg").count() == 5  # two points, two critics, and the closed form


def test_a_gradient_that_was_nothing_from_the_start(tmp_path: Path) -> None:
    """It has no ratio; nor does a null crash the page."""
    run = plant(tmp_path, "gan", 0, 4.0)
    lines = [
        {"images": 0, "critic": "onward", "steps": k, "loss": "gan", "g_norm": n} for k, n in ((0, 0.0), (1, None))
    ]
    (run / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path)
    (row,) = gradients.table(gradients.probe_results(load_study(tmp_path)))
    assert str(row[4]) == "undefined"


def test_low_diversity_is_flagged(rich: Path) -> None:
    (warning,) = training.low_diversity(load_study(rich))
    assert warning.startswith("hinge: coverage 0.8 is more than 0.3 above recall 0.3")
    assert training.low_diversity_signs(1.6, None, 0.1) == ["density 1.6 is above 1.5"]
    assert training.low_diversity_signs(1.5, 0.8, 0.55) == []


def test_a_list_is_no_score(rich: Path) -> None:
    study = load_study(rich)
    head = next(line for line in markdown(study).splitlines() if line.startswith("| method | recall"))
    assert "histogram" not in head
    assert [figure.title for figure in training.histograms(study)] == ["wgan-gp", "gan", "hinge"]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    run = plant(tmp_path, "gan", 0, 4.0)
    (run / "samples/000003200.png").write_bytes(b"cut off")
    (history,) = samples.sample_histories(load_study(tmp_path))
    assert [frame.images for frame in history.frames] == [0, 6400]
    write(tmp_path)
    assert "could not be read: 000003200.png" in (tmp_path / "report.html").read_text()


def test_trials_are_no_run(tmp_path: Path) -> None:
    plant(tmp_path, "gan", 0, 4.0)
    plant(tmp_path / "trials", "gan", 1, 4.0)
    assert [run.folder.name for run in load_study(tmp_path).runs] == ["gan-s0"]


def test_one_broken_sweep_does_not_cost_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plant(tmp_path / name, "gan", 0, 4.0)
    (tmp_path / "b/gan-s0/config.yaml").unlink()
    assert "- b: left out, because no run in it can be compared." in overview.write(tmp_path)
    assert (tmp_path / "a/report.html").exists() and "b: left out" in (tmp_path / "report.html").read_text()


def test_sweeps_of_two_tracks_are_not_mixed(tmp_path: Path) -> None:
    plant(tmp_path / "a", "gan", 0, 4.0)
    plant(tmp_path / "b", "gan", 0, 4.0, "protocol=paper")
    with pytest.raises(NotComparable, match="track is equal in a, paper in b"):
        overview.write(tmp_path)
    assert not (tmp_path / "report.html").exists()
    text = overview.write(tmp_path, ("track",))
    assert (
        "protocol paper (each method with its authors' settings)" in text and "(one setting for all methods; " in text
    )


def test_points_and_a_missing_probe_are_explained(rich: Path, tmp_path: Path) -> None:
    run = plant(tmp_path, "gan", 0, 4.0)
    of_images = (rich / "report.html").read_text()
    assert "Orange: samples" not in of_images and "<code>probe=vanishing</code>" not in of_images
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"shape:\n(  - \d+\n)+", "shape: [2]\n", config))
    write(tmp_path)
    of_points = (tmp_path / "report.html").read_text()
    assert "Orange: samples" in of_points and "<code>probe=vanishing</code>" in of_points


def test_sixty_runs_fit_into_five_megabytes(sixty: Path) -> None:
    page = (sixty / "report.html").read_text()
    assert page.count("data:image/webp") == 66
    assert len(page.encode()) <= 5_000_000


def test_six_methods_fit_two_sheets(sixty: Path, opened) -> None:
    page = opened(sixty / "report.html")
    for size in ("A4", "Letter"):
        sheets = page.pdf(format=size, print_background=True)
        assert len(re.findall(rb"/Type\s*/Page\b", sheets)) == 2, size
    page.emulate_media(media="print")
    for part in ("#verdict", "#results-table", "#results svg", "#differences svg", "#sides"):
        assert page.locator(part).first.is_visible(), part
    assert page.locator(".history img:visible").count() == 6


def test_an_overview_of_several_sweeps(tmp_path: Path, opened) -> None:
    for name in ("digits", "more digits"):
        (tmp_path / name).mkdir()
        plant_rich(tmp_path / name)
    text = overview.write(tmp_path)
    assert "| method | digits | more digits |" in text and "| wgan-gp | **2.5** |" in text
    page = opened(tmp_path / "report.html")
    assert "http" not in (tmp_path / "report.html").read_text()
    assert page.locator("#methods tbody th").all_inner_texts() == ["wgan-gp", "gan", "hinge"]
    assert "logarithms of scores; 0 is 0.5, 1 is 20" in page.locator("#profile").inner_text()
    assert page.locator("#ranks tbody td").all_text_contents()[:3] == ["100\xa0%", "0\xa0%", "0\xa0%"]
    assert opened(tmp_path / "report.html", width=390).evaluate("document.documentElement.scrollWidth <= 390")
    page.get_by_role("link", name="more digits").click()
    assert page.locator("h1").inner_text() == "3 GAN methods on mnist5k"


def test_normalized_scores(tmp_path: Path) -> None:
    """By hand: of 0.5 for real data and 20 untrained, 4 lies at ln 8 / ln 40; of -0.5 and 20, at 4.5 / 20.5."""
    plant(tmp_path, "gan", 0, 4.0)
    scale = overview.scale(load_study(tmp_path))
    assert (scale(0.5), scale(20.0), scale(math.inf)) == (0, 1, math.inf)
    assert scale(4.0) == pytest.approx(0.56371, abs=1e-5) and "logarithms" in str(scale)
    status = json.loads((tmp_path / "gan-s0/status.json").read_text())
    for reference, expected in ((-0.5, pytest.approx(4.5 / 20.5)), (20.0, None), (None, None)):
        status["real_reference"]["fd_lenet"] = reference
        (tmp_path / "gan-s0/status.json").write_text(json.dumps(status))
        scale = overview.scale(load_study(tmp_path))
        assert expected == (scale and scale(4.0)) and (scale is None or "scores themselves" in str(scale))


def test_a_score_below_zero_is_not_put_into_a_logarithm(tmp_path: Path) -> None:
    plant(tmp_path, "gan", 0, -0.1)
    assert overview.scale(load_study(tmp_path))(-0.1) == pytest.approx(-0.6 / 19.5)


def test_the_command_takes_a_folder_of_sweeps(tmp_path: Path) -> None:
    for name in ("a", "b"):
        plant(tmp_path / name, "gan", 0, 4.0)
        plant(tmp_path / name, "hinge", 0, 5.0)
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / name / "report.html").exists() for name in (".", "a", "b"))
    shutil.rmtree(tmp_path / "b")
    plant(tmp_path / "b", "gan", 0, 4.0)
    plant(tmp_path / "b", "hinge", 0, 5.0, "protocol.batch=64")
    with pytest.raises(NotComparable, match=r"^b: These runs are not comparable"):
        overview.write(tmp_path)


def test_the_report_needs_neither_torch_nor_wandb(rich: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ganbench.report import search; "
        "from ganbench.report.pages import overview, sweep; "
        f"sweep.write(Path({str(rich)!r})); sys.exit(', '.join({{'torch', 'wandb'}} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
