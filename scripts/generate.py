"""Write anew what is generated and checked in.

The table in docs/configuration.md, the CustomResourceDefinition, the chart's values, schema and table, and what is
predicted in configs/cards and docs/performance.md.
"""

from pathlib import Path

import chart_files
import keys_page
import predictions

from ltx2_operator import crd

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Write all; what is up to date stays byte-equal."""
    keys_page.write()
    (ROOT / "configs" / "crd" / "ltx2trainings.ltx2.dev.yaml").write_text(crd.render())
    chart_files.write()
    predictions.write()


if __name__ == "__main__":
    main()
