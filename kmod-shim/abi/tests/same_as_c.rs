//! The header and this crate say the same: offsets, sizes and constants, asked of the C compiler.

use graven_shim_abi as abi;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const STRUCTS: [abi::layout::StructLayout; 12] = [
    abi::Control::LAYOUT,
    abi::Producer::LAYOUT,
    abi::Consumer::LAYOUT,
    abi::Part::LAYOUT,
    abi::Call::LAYOUT,
    abi::Item::LAYOUT,
    abi::Object::LAYOUT,
    abi::Gap::LAYOUT,
    abi::Rule::LAYOUT,
    abi::Rules::LAYOUT,
    abi::Policy::LAYOUT,
    abi::Status::LAYOUT,
];

fn header() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/graven_shim.h");
    std::fs::read_to_string(path).unwrap()
}

/// Compiles assertions, does not run them: what the compiler said if one does not hold.
fn compiles(assertions: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("same.c");
    std::fs::write(&file, format!("#include \"graven_shim.h\"\n{assertions}")).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Wpadded", "-Werror", "-fsyntax-only", "-I"]);
    let said = cc.arg(include).arg(&file).output().expect("a C compiler, as `cc`");
    if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into()) }
}

fn layout_of(one: &abi::layout::StructLayout) -> String {
    let name = one.name;
    let mut c =
        format!("_Static_assert(sizeof(struct {name}) == {}, \"{name}: bytes\");\n", one.len);
    for field in one.fields {
        let (what, at, len) = (field.name, field.offset, field.len);
        writeln!(
            c,
            "_Static_assert(offsetof(struct {name}, {what}) == {at} && sizeof(((struct {name} *)0)->{what}) == {len}, \
             \"{name}.{what}\");"
        )
        .unwrap();
    }
    c
}

#[test]
fn every_field_lies_where_c_has_it() {
    for one in STRUCTS {
        compiles(&layout_of(&one)).unwrap();
    }
    // Without holes here, and of the same size there: a field that only C has would show.
    for one in STRUCTS {
        assert_eq!(one.fields.iter().map(|field| field.len).sum::<usize>(), one.len);
    }
}

#[test]
fn a_field_that_moved_is_seen() {
    let moved = layout_of(&abi::Part::LAYOUT).replace("ring_seq) == 16", "ring_seq) == 8");
    assert!(compiles(&moved).unwrap_err().contains("graven_part.ring_seq"));
}

#[test]
fn every_constant_is_the_same_and_none_is_missing() {
    let mut c = String::new();
    for (name, value) in abi::CONSTANTS {
        writeln!(c, "_Static_assert({name} == {value}ULL, \"{name}\");").unwrap();
    }
    compiles(&c).unwrap();
    let header = header();
    let defined: BTreeSet<&str> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "GRAVEN_SHIM_H")
        .collect();
    assert_eq!(defined, abi::CONSTANTS.iter().map(|(name, _)| *name).collect());
    let structs = header.lines().filter(|line| line.starts_with("struct ")).count();
    assert_eq!(structs, STRUCTS.len());
}

#[test]
fn a_structure_is_read_from_its_bytes_and_written_to_them() {
    let bytes: Vec<u8> = (0..abi::Part::LEN as u8).collect();
    let part = abi::Part::read(&bytes).unwrap();
    assert_eq!((part.bytes, part.kind, part.flags), (0x0302_0100, 0x0504, 0x0706));
    assert_eq!(part.order, 0x1f1e_1d1c_1b1a_1918);
    assert_eq!(abi::Part::read(&bytes[1..]), None);
    assert_eq!(part.to_bytes(), *bytes);
    let bytes: Vec<u8> = (0..abi::Call::LEN as u8).collect();
    assert_eq!(abi::Call::read(&bytes).unwrap().to_bytes(), *bytes);
}
