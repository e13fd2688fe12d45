//! Compiles the state machine, from where the module has it.

fn main() {
    println!("cargo::rerun-if-changed=src/twin.c");
    println!("cargo::rerun-if-changed=../core");
    println!("cargo::rerun-if-changed=../include");
    cc::Build::new()
        .file("src/twin.c")
        .include("../core")
        .std("gnu11")
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("graven_twin");
}
