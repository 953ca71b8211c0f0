"""Control flow: the executor itself runs these; there is no C++ kernel file."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op

FAMILY = Family(
    "control",
    simd=False,
    operators=(
        op(
            "If", "1-", "cond:B", "outputs*:Any", "then_branch!:graph else_branch!:graph",
            kernel="", control="if", keys="",
        ),
        op(
            "Loop", "1-", "M?:I cond?:B v_initial*:Any", "v_final_and_scan_outputs*:Any",
            "body!:graph", kernel="", control="loop", keys="",
        ),
        op(
            "Scan", "9-", "initial_state_and_scan_inputs*:Any",
            "final_state_and_scan_outputs*:Any",
            "body!:graph num_scan_inputs!:int scan_input_axes:ints scan_input_directions:ints"
            " scan_output_axes:ints scan_output_directions:ints",
            kernel="", control="scan", keys="",
        ),
    ),
)  # fmt: skip
