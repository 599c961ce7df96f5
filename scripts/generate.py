"""Write anew what is generated and checked in.

The table in docs/configuration.md, the CustomResourceDefinition, and what is predicted in configs/cards and
docs/performance.md.
"""

from pathlib import Path

import predictions

from ltx2_job.config.reference import reference_markdown
from ltx2_operator import crd

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- reference:begin -->", "<!-- reference:end -->"


def main() -> None:
    """Write all; what is up to date stays byte-equal."""
    page = ROOT / "docs" / "configuration.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{reference_markdown().strip()}\n{END}{after}")
    (ROOT / "configs" / "crd" / "ltx2trainings.ltx2.dev.yaml").write_text(crd.render())
    predictions.write()


if __name__ == "__main__":
    main()
