"""The programs that the README and the docs print run exactly as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINKING = [ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/README.md"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def programs(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_programs_of_a_page_run_one_after_another(
    page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn", reason="the programs read data that scikit-learn bundles, which is not installed")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for program in programs(page):
        exec(compile(program, f"{page.name}", "exec"), names)
    if page.name == "README.md":
        history, logits = names["history"], names["logits"]
        assert history["validation/accuracy"][-1] > 0.9  # pyright: ignore[reportIndexIssue]
        assert logits.shape == (597, 10)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("page", [*PAGES, *LINKING], ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"
