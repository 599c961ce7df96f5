"""`ltx2 gpus`: what there is to train on."""

from argparse import Namespace

from ltx2_job import exitcodes
from ltx2_operator import gpus as table_of
from ltx2_operator.accept import GIB
from ltx2_operator.cli.words import table
from ltx2_operator.machine import detect


def gpus(args: Namespace) -> int:
    """The classes, and what this machine has."""
    rows: list[tuple[str, ...]] = [
        ("CLASS", "VENDOR", "MEMORY", "BF16", "FP8", "TFLOPS", "LINK GB/S", "IMAGE", "NODE LABEL")
    ]
    for entry in table_of.CLASSES:
        label = next((values[0] for labels in entry.nodes for values in labels.values()), "-")
        memory = f"{entry.memory_bytes / GIB:.1f} GiB" if entry.memory_bytes else "-"
        able = tuple("yes" if units else "no" for units in (entry.bf16, entry.fp8)) if entry.resource else ("-", "-")
        rates = (f"{rate:g}" if rate else "-" for rate in (entry.bf16_tflops, entry.link_gbps))
        rows.append((entry.name, entry.vendor, memory, *able, *rates, entry.flavour, label))
    for line in table(rows):
        print(line)
    print("\nTFLOPS: dense bf16, by the data sheet. NODE LABEL: the first value that names the class, of")
    print(" or ".join(table_of.PRODUCT_LABELS.values()))
    found = detect()
    print(f"this machine: {'no GPU' if not found else ''}")
    for gpu in found:
        print(
            f"  {gpu.index}: {gpu.product}, {gpu.memory_mib} MiB, class {gpu.gpu_class.name if gpu.gpu_class else '-'}"
        )
    return exitcodes.OK
