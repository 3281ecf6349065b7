"""Runs PTX on the CPU: each instruction becomes a line of C, with the rounding that PTX states for it.

Only what ``noise.ptx`` holds is known; anything else is an error. Additions and products of float64 are IEEE's in
both worlds. ``rcp.approx.ftz.f64`` alone is not: PTX promises no last bits of it, and here it is the reciprocal's
upper half, moved by `nudge` units of its last place. Functions that are called end the process: NVIDIA's sincos
calls one for arguments from 2^31 on, which never come.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

PRELUDE = """
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
static double as_double(uint64_t b) { double x; memcpy(&x, &b, 8); return x; }
static uint64_t bits(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
static float as_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
static uint64_t upper(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }
static double rcp(double x) {
    double inverse = 1.0 / as_double(bits(x) & 0xFFFFFFFF00000000ull);
    return as_double((bits(inverse) & 0xFFFFFFFF00000000ull) + ((uint64_t)(int64_t)(NUDGE) << 32));
}
"""
ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*\{(.*?)\n\}\n", re.DOTALL)
CTYPES = {"b64": "uint64_t", "b32": "uint32_t", "f64": "double", "f32": "float", "pred": "int", "u64": "uint64_t"}
CTYPES |= {"u32": "uint32_t", "s64": "int64_t", "s32": "int32_t"}
SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "and": "&",
    "or": "|",
    "xor": "^",
    "div": "/",
    "shl": "<<",
    "shr": ">>",
}
COMPARISONS = {"eq": "==", "ge": ">=", "gt": ">", "lt": "<", "ltu": "<"}
CONVERSIONS = {
    "u64.u32": "(uint64_t){}",
    "u32.u64": "(uint32_t){}",
    "rn.f64.u32": "(double){}",
    "rn.f64.s32": "(double)(int32_t){}",
    "rn.f32.f64": "(float){}",
    "rn.f32.u32": "(float){}",
    "rni.s32.f64": "(uint32_t)(int32_t)nearbyint({})",
}


def in_c(ptx: str) -> str:
    """The entries of PTX as C functions `NAME(parameters, blocks, threads)`, which do all threads in turn."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    entries = ENTRY.findall(ptx)
    assert entries, "PTX without entries"
    return PRELUDE + "\n".join(_entry(name, body) for name, _, body in entries)


def _entry(name: str, body: str) -> str:
    lines = [_line(part.strip()) for part in re.split(r"(?<=[;{}:])\s+", _without_calls(body)) if part.strip()]
    text = "\n".join(lines)
    return f"""
static void one_{name}(const uint64_t *param, uint32_t ctaid, uint32_t ntid, uint32_t tid) {{
{text}
}}
void {name}(const uint64_t *param, uint32_t blocks, uint32_t threads) {{
    for (uint32_t block = 0; block < blocks; ++block)
        for (uint32_t thread = 0; thread < threads; ++thread)
            one_{name}(param, block, threads, thread);
}}
"""


def _without_calls(body: str) -> str:
    """Calls end here; vectors of two become one word, so that braces are scopes alone."""
    body = re.sub(r"\{\s*\.reg \.b32 temp_param_reg;.*?call\.uni.*?ld\.param\.\w+\s+(\S+), \[retval0\+0\];\s*\}",
                  "call;", body, flags=re.DOTALL)  # fmt: skip
    return re.sub(r"\{([^{};]+), ([^{};]+)\}", r"<\1 \2>", body)


def _line(line: str) -> str:
    if line in ("{", "}"):
        return line
    if line.endswith(":"):
        return f"{_name(line[:-1])}: ;"
    guard = re.match(r"@(!?)%p(\d+)\s+(.*)", line)
    if guard:
        return f"if ({guard[1]}p[{guard[2]}]) {_line(guard[3])}"
    code, _, rest = line.removesuffix(";").partition(" ")
    code, operands = code.strip(), [each.strip() for each in rest.replace("\t", " ").split(",")]
    if code.startswith(".local"):
        size = re.search(r"(\w+)\[(\d+)\]", line)
        assert size is not None
        return f"_Alignas(8) uint8_t {size[1]}[{size[2]}];"
    if code.startswith(".reg"):
        return _registers(line)
    return _instruction(*code.split("."), operands=operands)


def _registers(line: str) -> str:
    found = re.fullmatch(r"\.reg \.(\w+)\s+%(\w+)(?:<(\d+)>)?\s*;", line)
    assert found is not None, line
    return f"{CTYPES[found[1]]} {found[2]}{f'[{found[3]}]' if found[3] else ''};"


def _instruction(kind: str, *how: str, operands: list[str]) -> str:
    given = [_value(each) for each in operands]
    target, last = given[0] if given else "", how[-1] if how else ""
    if kind == "call":
        return "abort();"
    if kind == "ret":
        return "return;"
    if kind == "bra":
        return f"goto {_name(operands[0])};"
    if kind in ("ld", "st"):
        return _memory(kind, how, operands)
    if kind == "mov":
        return _move(operands)
    return f"{target} = {_result(kind, how, last, given[1:])};"


def _result(kind: str, how: tuple[str, ...], last: str, given: list[str]) -> str:
    if kind == "cvta":
        return given[0]
    if kind == "cvt":
        return CONVERSIONS[".".join(how)].format(given[0])
    if kind == "setp":
        type_ = CTYPES[last]
        return f"({type_}){given[0]} {COMPARISONS[how[0]]} ({type_}){given[1]}"
    if kind == "selp":
        return f"{given[2]} ? {given[0]} : {given[1]}"
    if (kind, *how) == ("mul", "hi", "u64"):
        return f"upper({given[0]}, {given[1]})"
    if (kind, *how) == ("mul", "wide", "u32"):
        return f"(uint64_t){given[0]} * {given[1]}"
    if last in ("f64", "f32"):
        return _floating(kind, how, given)
    type_ = CTYPES[last].replace("int", "uint").replace("uuint", "uint")
    assert how[:-1] in ((), ("lo",))
    assert not (kind in ("shr", "div") and last.startswith("s"))
    return f"({type_})(({type_}){given[0]} {SIGNS[kind]} ({type_}){given[1]})"


def _floating(kind: str, how: tuple[str, ...], given: list[str]) -> str:
    if kind in ("neg", "abs"):
        return f"-{given[0]}" if kind == "neg" else f"fabs({given[0]})"
    if (kind, how) == ("rcp", ("approx", "ftz", "f64")):
        return f"rcp({given[0]})"
    assert how[0] == "rn", "without fused multiply-add each operation says how it is rounded"
    if kind in ("fma", "sqrt"):
        return f"{kind}({', '.join(given)})"
    return f"{given[0]} {SIGNS[kind]} {given[1]}"


def _memory(kind: str, how: tuple[str, ...], operands: list[str]) -> str:
    where, type_ = operands[0 if kind == "st" else 1].strip("[]"), CTYPES[how[-1]]
    if how[0] == "param":
        return f"{_value(operands[0])} = param[{where.rpartition('_')[2]}];"
    base, _, offset = where.partition("+")
    place = f"*({type_} *)(uintptr_t)({_value(base)} + {offset or 0})"
    return f"{place} = {_value(operands[1])};" if kind == "st" else f"{_value(operands[0])} = {place};"


def _move(operands: list[str]) -> str:
    target, source = operands
    if target.startswith("<"):
        lower, higher = (_value(each) for each in target.strip("<>").split())
        return f"{{ uint64_t both = bits({_value(source)}); {lower} = (uint32_t)both; {higher} = both >> 32; }}"
    if source.startswith("<"):
        lower, higher = (_value(each) for each in source.strip("<>").split())
        return f"{_value(target)} = as_double((uint64_t){higher} << 32 | {lower});"
    if target.startswith("%f") and not target.startswith("%fd"):
        return f"{_value(target)} = as_float({_value(source)});"
    if source.startswith("__local"):
        return f"{_value(target)} = (uint64_t)(uintptr_t){source};"
    return f"{_value(target)} = {_value(source)};"


def _name(label: str) -> str:
    return label.replace("$", "label")


def _value(operand: str) -> str:
    register = re.fullmatch(r"%([a-z]+)(\d+)", operand)
    if register:
        return f"{register[1]}[{register[2]}]"
    if operand.startswith("0d"):
        return f"as_double(0x{operand[2:]}ull)"
    if operand.startswith("0f"):
        return f"as_float(0x{operand[2:]}u)"
    if re.fullmatch(r"-?\d+", operand):
        return f"({int(operand) % 2**64}ull)"
    return operand.lstrip("%").removesuffix(".x")


def built(ptx: str, compiler: str, folder: Path, *, nudge: int = 0) -> Callable[..., None]:
    """Runs an entry: name, parameters, blocks, threads of a block (a `Play` of ``host_driver.py``)."""
    source, library = folder / f"ptx{nudge}.c", folder / f"ptx{nudge}.so"
    source.write_text(in_c(ptx))
    flags = ["-std=gnu11", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wno-overflow", f"-DNUDGE={nudge}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True, timeout=120)
    loaded = ctypes.CDLL(str(library))

    def play(name: str, values: tuple[int, ...], blocks: int, threads: int) -> None:
        getattr(loaded, name)((ctypes.c_uint64 * len(values))(*values), ctypes.c_uint32(blocks), threads)

    return play
