"""Write anew what is generated and checked in: the table in docs/configuration.md and the CustomResourceDefinition."""

from pathlib import Path

from ltx2_job.config.reference import reference_markdown
from ltx2_operator import crd

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- reference:begin -->", "<!-- reference:end -->"


def main() -> None:
    """Write both; what is up to date stays byte-equal."""
    page = ROOT / "docs" / "configuration.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{reference_markdown().strip()}\n{END}{after}")
    (ROOT / "configs" / "crd" / "ltx2trainings.ltx2.dev.yaml").write_text(crd.render())


if __name__ == "__main__":
    main()
