"""The pages in a real browser, opened as files: the viewer, the tables, a phone, print."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
from cohort import make_cohort, manual_masks
from heads import BLOCK, CLASSES, write_head

from msnmo_bids.bids.names import CAM_PREFIX, derivative_paths
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.group.write import GroupSettings, write_group
from msnmo_bids.reports.participant import write_participant_report

playwright = pytest.importorskip("playwright.sync_api")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

SCAN = "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
DESKTOP, PHONE = (1280, 900), (390, 844)


@contextmanager
def opened(file: Path, size: tuple[int, int] = DESKTOP) -> Iterator[Any]:
    """Open a page without a network; it may neither ask for anything nor report an error."""
    asked: list[str] = []
    errors: list[str] = []
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(file.as_uri())
        yield page
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert not errors


@pytest.fixture
def report(tmp_path: Path, output_dir: Path, add_results: Callable[..., ScanRecord]) -> Path:
    """Return the report of a scan with one lesion, with its images."""
    scan = add_results(SCAN)
    head = write_head(tmp_path)
    paths = derivative_paths(scan.folder, scan.prefix, CLASSES)
    sources = {"preproc": head.flair, "lesion_labels": head.labels}
    sources |= {f"{CAM_PREFIX}{name}": head.cams[name] for name in CLASSES}
    for kind, source in sources.items():
        nib.save(nib.load(source), output_dir / paths[kind])
    return write_participant_report(output_dir, "01", [scan])


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Return the page of a made-up cohort with manual masks."""
    raw, out, entries = make_cohort(tmp_path, 12)
    settings = GroupSettings(masks=manual_masks(raw, entries))
    write_group(out, entries, bids_dir=raw, settings=settings)
    return out / "group_FLAIR.html"


def picture(page: Any, plane: str = "axial") -> str:
    """Return a plane of the viewer as it is drawn now."""
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return page.locator(f"canvas[data-plane={plane}]").evaluate("canvas => canvas.toDataURL()")


def place(readout: str) -> list[float]:
    """Return x, y, z (RAS mm) of the viewer's cross, which it says below the planes."""
    return [float(part.split()[1]) for part in readout.split(" mm")[0].split(", ")]


def test_viewer_shows_the_lesion_and_obeys_its_controls(report: Path) -> None:
    with opened(report) as page:
        viewer = page.locator(".viewer")
        viewer.scroll_into_view_if_needed()
        page.wait_for_selector(".viewer.ready")
        readout = viewer.locator("output")
        centre = BLOCK.mean(axis=1)
        where = readout.inner_text()
        assert where.endswith("lesion 1")
        assert place(where) == pytest.approx(centre.tolist(), abs=3)
        for plane in ("axial", "coronal", "sagittal"):
            before = picture(page, plane)
            viewer.locator("[name=lesions]").uncheck()
            assert picture(page, plane) != before
            viewer.locator("[name=lesions]").check()
            assert picture(page, plane) == before
        before = picture(page)
        for change in ("cam", "opacity", "brightness"):
            control = viewer.locator(f"[name={change}]")
            if change == "cam":
                control.select_option("MS")
            else:
                control.fill("75")
            after = picture(page)
            assert after != before, change
            before = after


def test_a_click_in_a_plane_moves_and_the_lesion_table_leads_back(report: Path) -> None:
    with opened(report) as page:
        page.locator(".viewer").scroll_into_view_if_needed()
        page.wait_for_selector(".viewer.ready")
        readout = page.locator(".viewer output")
        at_lesion = readout.inner_text()
        canvas = page.locator("canvas[data-plane=axial]")
        box = canvas.bounding_box()
        canvas.click(position={"x": box["width"] * 0.7, "y": box["height"] * 0.7})
        picture(page)
        x, y, _ = place(readout.inner_text())
        assert x > 0, "the person's right is on the right"
        assert y < 0, "behind is below"
        page.locator("button[data-lesion='1']").click()
        playwright.expect(readout).to_have_text(at_lesion)


@pytest.mark.parametrize("name", ["report", "cohort"])
def test_nothing_is_cut_off_on_a_phone(name: str, request: pytest.FixtureRequest) -> None:
    with opened(request.getfixturevalue(name), PHONE) as page:
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE[0]


@pytest.mark.parametrize(("name", "paper"), [("report", 186), ("cohort", 273)])
def test_tables_fit_on_paper(name: str, paper: float, request: pytest.FixtureRequest) -> None:
    width = int(paper / 25.4 * 96)
    with opened(request.getfixturevalue(name), (width, 900)) as page:
        page.emulate_media(media="print")
        tables = page.locator("table")
        assert tables.count()
        wide = tables.evaluate_all(
            "all => all.filter(t => t.scrollWidth > t.parentElement.clientWidth + 1)"
            ".map(t => t.innerText.slice(0, 60))"
        )
        assert not wide


def test_print_has_figures_in_place_of_the_viewer(report: Path) -> None:
    with opened(report) as page:
        assert page.locator(".viewer").is_visible()
        page.emulate_media(media="print")
        assert not page.locator(".viewer").is_visible()
        assert page.locator("figure.lesions img").is_visible()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details.printed").first.evaluate("part => part.open")


def test_cohort_table_is_sorted_and_filtered(cohort: Path) -> None:
    with opened(cohort) as page:
        rows = page.locator("#all-scans tbody tr")
        everything = rows.count()
        header = page.locator("#all-scans th", has_text="Volume").first
        column = header.evaluate("cell => cell.cellIndex")

        def volumes() -> list[float]:
            cells = page.locator(
                f"#all-scans tbody tr td:nth-child({column + 1})"
            ).all_inner_texts()
            return [float(text) for text in cells if text.replace(".", "").isdigit()]

        header.click()
        assert volumes() == sorted(volumes())
        header.click()
        assert volumes() == sorted(volumes(), reverse=True)
        page.locator(".tools input[type=search]").first.fill("sub-002")
        visible = [row for row in rows.all() if row.is_visible()]
        assert 0 < len(visible) < everything
        assert all("sub-002" in row.inner_text() for row in visible)
