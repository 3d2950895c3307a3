//! Every kernel compiles for two architectures, where NVRTC is installed. It needs no
//! device: `PATARM_TEST_NVRTC` names the folder of its libraries.

use super::*;
use crate::cuda::device::Element;

/// What is compiled: head widths of real models, one that is no multiple of 16.
fn programs() -> Vec<Program> {
    let mut programs = vec![Program::Base];
    for head_dim in [64, 80, 128, 256] {
        for element in [Element::F32, Element::Bf16] {
            programs.push(Program::Attention { head_dim, element });
        }
    }
    programs
}

#[test]
fn nvrtc_compiles_every_kernel_for_both_architectures() {
    let Some(folder) = std::env::var_os("PATARM_TEST_NVRTC") else {
        eprintln!("skipped: PATARM_TEST_NVRTC is not set");
        return;
    };
    let cache = tempfile::tempdir().expect("folder");
    let compiler = Compiler::open(&[folder.into()], Some(cache.path().to_owned())).expect("NVRTC");
    eprintln!("NVRTC {:?}", compiler.version());
    for architecture in ["sm_80", "sm_90a"] {
        for program in programs() {
            let image = compiler.compile(program, architecture).expect("compiles");
            for kernel in program.kernels() {
                let name = kernel.as_bytes();
                let is_there = image.bytes.windows(name.len()).any(|bytes| bytes == name);
                assert!(is_there, "{architecture} {program:?}: {kernel}");
            }
            assert_eq!(compiler.compile(program, architecture).expect("kept"), image);
        }
    }
    let kept = std::fs::read_dir(cache.path()).expect("folder").count();
    assert_eq!(kept, 2 * programs().len(), "one file a program and architecture");
    let ptx = compiler.compile(Program::Base, "compute_80").expect("compiles");
    assert!(ptx.bytes.ends_with(&[0]) && ptx.bytes.windows(7).any(|bytes| bytes == b".target"));
    assert_eq!(compiler.architecture(90), "sm_90a");
    assert_eq!(compiler.architecture(80), "sm_80");
    assert!(compiler.architecture(999).starts_with("compute_"));
}

#[test]
fn a_kept_file_that_is_damaged_is_not_used() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("below").join("x.cubin");
    let image = Image { bytes: b"an image".to_vec() };
    assert_eq!(kept(&path), None);
    keep(&path, &image).expect("written");
    assert_eq!(kept(&path), Some(image));
    let whole = std::fs::read(&path).expect("read");
    for damaged in [&whole[..whole.len() - 1], &whole[..DIGEST_BYTES], &whole[..5], b""] {
        std::fs::write(&path, damaged).expect("written");
        assert_eq!(kept(&path), None);
    }
    let mut changed = whole.clone();
    changed[DIGEST_BYTES] ^= 1;
    std::fs::write(&path, changed).expect("written");
    assert_eq!(kept(&path), None);
}

#[test]
fn a_cached_file_depends_on_source_options_and_version() {
    let compiler = |version| Compiler { version, architectures: vec![80, 90], cache: None };
    let (new, old) = (compiler((13, 0)), compiler((12, 8)));
    let name = |compiler: &Compiler, program, architecture| {
        let program: Program = program;
        compiler.file(&program.source(), &options(program, architecture))
    };
    let attention = |head_dim| Program::Attention { head_dim, element: Element::Bf16 };
    let names = [
        name(&new, Program::Base, "sm_80"),
        name(&new, Program::Base, "sm_90a"),
        name(&old, Program::Base, "sm_80"),
        name(&new, attention(64), "sm_80"),
        name(&new, attention(128), "sm_80"),
    ];
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert_eq!(name(&new, Program::Base, "sm_80"), names[0]);
    assert_eq!(new.architecture(89), "compute_80");
}
