"""Strings: joining, splitting, letter case, patterns, counts of n-grams."""

from __future__ import annotations

from ortolan.catalog.operator import Family, op
from ortolan.catalog.types import BOOL, FLOAT, INDEX, INT64, STRING

FAMILY = Family(
    "text",
    simd=False,
    operators=(
        op(
            "StringConcat", "20-", "X:T Y:T", "Z:T", types={"T": STRING}, instances="once",
            infer="infer_broadcast",
        ),
        op(
            "StringSplit", "20-", "X:T1", "Y:T2 Z:T3", "delimiter:string maxsplit:int",
            types={"T1": STRING, "T2": STRING, "T3": INT64}, instances="once", keys="T1",
            infer="none", flags=("data_dependent",),
        ),
        op(
            "StringNormalizer", "10-", "X:X", "Y:X",
            "case_change_action:string=NONE is_case_sensitive:int=0 locale:string"
            " stopwords:strings",
            types={"X": STRING}, instances="once", keys="X", infer="none",
            flags=("data_dependent",),
        ),
        op(
            "RegexFullMatch", "20-", "X:T1", "Y:T2", "pattern:string",
            types={"T1": STRING, "T2": BOOL}, instances="once", keys="T1", prepare="plain",
        ),
        op(
            "Tokenizer", "1-", "X:T", "Y:T",
            "mark!:int mincharnum!:int pad_value!:string separators:strings tokenexp:string",
            domain="com.microsoft", types={"T": STRING}, instances="once", prepare="plain",
            flags=("data_dependent",),
        ),
        op(
            "TfIdfVectorizer", "9-", "X:T", "Y:T1",
            "max_gram_length!:int max_skip_count!:int min_gram_length!:int mode!:string"
            " ngram_counts!:ints ngram_indexes!:ints pool_int64s:ints pool_strings:strings"
            " weights:floats",
            types={"T": INDEX | STRING, "T1": FLOAT}, instances="once", prepare="plain",
        ),
    ),
)  # fmt: skip
