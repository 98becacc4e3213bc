# SPDX-License-Identifier: MulanPSL-2.0
"""Which programs LD_PRELOAD reaches, by what stands in their files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from fake_native import compile_c

from gazelled.launch.preload import obstacle


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An ordinary program."""
    source, output = tmp_path / "program.c", tmp_path / "program"
    source.write_text("int main(void) { return 0; }\n")
    compile_c([source], output)
    return output


def test_an_ordinary_program_can_be_preloaded(program: Path) -> None:
    assert obstacle(program) is None


def test_a_script_is_judged_by_its_interpreter(tmp_path: Path, program: Path) -> None:
    static = tmp_path / "static"
    compile_c([tmp_path / "program.c"], static, "-static")
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.write_text(f"#!{inner} -x\n")
    inner.write_text(f"#! {program}\n")
    assert obstacle(outer) is None
    inner.write_text(f"#! {static}\n")
    assert obstacle(outer) == f"{static} is statically linked: there is no loader that reads LD_PRELOAD"
    outer.write_text(f"#!{outer}\n")  # the kernel refuses that, not we
    assert obstacle(outer) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "word"), [(0o4755, "setuid"), (0o2755, "setgid")])
def test_a_program_with_other_rights_is_refused(program: Path, mode: int, word: str) -> None:
    os.chown(program, 65534, 65534)
    program.chmod(mode)
    assert obstacle(program) == f"{program} is {word}: the loader ignores LD_PRELOAD for it"
    os.chown(program, 0, 0)
    program.chmod(mode)  # the same rights as ours: the loader does not care
    assert obstacle(program) is None


def test_a_go_program_is_refused(tmp_path: Path, program: Path) -> None:
    note = tmp_path / "note.s"
    note.write_text('.section .note.go.buildid,"a",@note\n.long 4, 4, 4\n.ascii "Go\\0\\0"\n.long 0\n')
    compile_c([tmp_path / "program.c", note], program)
    assert obstacle(program) == f"{program} is a Go program: it calls the kernel without the C library"


def test_another_c_library_is_refused(tmp_path: Path, program: Path) -> None:
    compile_c([tmp_path / "program.c"], program, "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1")
    assert obstacle(program) == f"{program} uses another C library (/lib/ld-musl-x86_64.so.1)"


def test_a_32_bit_program_is_refused(program: Path) -> None:
    data = bytearray(program.read_bytes())
    data[4] = 1
    program.write_bytes(data)
    assert obstacle(program) == f"{program} is a 32-bit program"


def test_what_is_no_program_is_left_to_the_kernel(tmp_path: Path, program: Path) -> None:
    path = tmp_path / "something"
    damaged = bytearray(program.read_bytes())
    struct.pack_into("<Q", damaged, 32, 1 << 40)  # program headers far behind the end
    for content in (b"", b"#!\n", b"\x7fELF", b"just text", bytes(damaged)):
        path.write_bytes(content)
        assert obstacle(path) is None
    assert obstacle(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("place", "value"), [(18, 0xF3), (5, 2)], ids=["machine", "byte order"])
def test_a_program_of_another_machine_is_refused(program: Path, place: int, value: int) -> None:
    image = bytearray(program.read_bytes())
    image[place] = value
    program.write_bytes(image)
    assert obstacle(program) == f"{program} is a program of another kind of machine"
