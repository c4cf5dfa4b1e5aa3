//! Every kernel compiles for every architecture, and its machine code keeps the promises of the manifest.

use std::{collections::BTreeMap, env};

use openclaw_kernels::cuda::{
    Compiled, Module, Nvrtc,
    libraries::VARIABLE,
    manifest::{ARCHS, Specialisation, specialisations},
};
use rayon::prelude::*;

/// What the assembler says of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
    registers: usize,
    shared_bytes: usize,
    spilled_bytes: usize,
    wide_loads: usize,
    narrow_loads: usize,
}

/// The number before `what` in a line.
fn number_before(line: &str, what: &str) -> Option<usize> {
    let digits = line[..line.find(what)?].trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn facts_of(compiled: &Compiled) -> BTreeMap<String, Facts> {
    let mut facts: BTreeMap<String, Facts> = BTreeMap::new();
    let mut kernel = String::new();
    for line in compiled.log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().expect("split gives a first part").to_owned();
        }
        let entry = facts.entry(kernel.clone()).or_default();
        if let Some(bytes) = number_before(line, " bytes spill stores") {
            entry.spilled_bytes += bytes + number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(registers) = number_before(line, " registers") {
            entry.registers = registers;
            entry.shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    let mut kernel = "";
    for line in compiled.ptx.lines() {
        if let Some((_, rest)) = line.split_once(".entry ") {
            kernel = rest.split('(').next().expect("split gives a first part").trim();
        }
        let Some((instruction, _)) = line.trim_start().split_once(|c: char| c.is_whitespace()) else {
            continue;
        };
        if instruction.starts_with("ld.global") {
            let entry = facts.entry(kernel.to_owned()).or_default();
            if instruction.contains(".v4.")
                || instruction.contains(".v2.b64")
                || instruction.contains(".v2.u64")
            {
                entry.wide_loads += 1;
            } else {
                entry.narrow_loads += 1;
            }
        }
    }
    facts
}

/// What a kernel's machine code breaks.
fn broken(kernel: &Specialisation, facts: &Facts) -> Option<String> {
    if kernel.no_spills && facts.spilled_bytes > 0 {
        return Some(format!("spills {} bytes", facts.spilled_bytes));
    }
    let allowed = kernel.narrow_loads?;
    if facts.wide_loads == 0 || facts.narrow_loads > allowed {
        let (wide, narrow) = (facts.wide_loads, facts.narrow_loads);
        return Some(format!("has {wide} loads of 16 bytes and {narrow} narrower ones, {allowed} allowed"));
    }
    None
}

fn nvrtc() -> Option<Nvrtc> {
    match Nvrtc::find() {
        Ok(nvrtc) => Some(nvrtc),
        Err(error) => {
            assert!(env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{error}");
            eprintln!("skipped: {error}; {VARIABLE} can name the folder of a wheel");
            None
        }
    }
}

#[test]
fn every_kernel_compiles_for_every_architecture_and_keeps_its_promises() {
    let Some(nvrtc) = nvrtc() else { return };
    let all = specialisations();
    let mut modules: Vec<&Module> = Vec::new();
    for kernel in &all {
        if !modules.contains(&&kernel.module) {
            modules.push(&kernel.module);
        }
    }
    let mut table = format!(
        "NVRTC {}.{}\n{:<64} {:>5} {:>9} {:>6} {:>6} {:>5}/narrow\n",
        nvrtc.version.0, nvrtc.version.1, "kernel", "arch", "registers", "shared", "spills", "wide"
    );
    let mut problems = Vec::new();
    let compilations = ARCHS.iter().flat_map(|arch| modules.iter().map(|module| (*arch, *module)));
    let compilations: Vec<_> = compilations
        .filter(|(arch, module)| all.iter().any(|k| k.module == **module && k.is_for(*arch)))
        .collect();
    let compiled: Vec<_> =
        compilations.par_iter().map(|(arch, module)| nvrtc.compile(module, *arch)).collect();
    for ((arch, module), compiled) in compilations.into_iter().zip(compiled) {
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        };
        assert_eq!(&compiled.cubin[..4], b"\x7fELF");
        let facts = facts_of(&compiled);
        for kernel in all.iter().filter(|k| k.module == *module && k.is_for(arch)) {
            let label = format!("{} in {}", kernel.kernel, module.label());
            let Some(facts) = facts.get(kernel.kernel) else {
                problems.push(format!("there is no {label} for sm_{arch}"));
                continue;
            };
            let Facts { registers, shared_bytes, spilled_bytes, wide_loads, narrow_loads } = facts;
            table += &format!(
                "{label:<64} {arch:>5} {registers:>9} {shared_bytes:>6} {spilled_bytes:>6} {wide_loads:>5}/{narrow_loads}\n"
            );
            problems.extend(broken(kernel, facts).map(|what| format!("{label} for sm_{arch} {what}")));
        }
    }
    eprintln!("{table}");
    assert!(problems.is_empty(), "{table}\n{}", problems.join("\n"));
}

#[test]
fn a_kernel_that_spills_or_reads_in_small_pieces_is_noticed() {
    static SOURCE: openclaw_kernels::cuda::Source = openclaw_kernels::cuda::Source {
        file: "bad.cu",
        text: "KERNEL(bad, (1024), float* x, const float* y) {
            float kept[96];
            for (int i = 0; i < 96; i++) kept[i] = y[threadIdx.x + 1024 * i];
            __syncthreads();
            for (int i = 0; i < 96; i++) for (int j = 0; j < 96; j++) x[threadIdx.x + 1024 * (i * 96 + j)] = kept[i] * kept[j];
        }
        KERNEL(good, (32), uint4* x, const uint4* y) { x[threadIdx.x] = load_constant(y + threadIdx.x); }",
    };
    let Some(nvrtc) = nvrtc() else { return };
    let module = Module::new(&SOURCE);
    let facts = facts_of(&nvrtc.compile(&module, 90).expect("it compiles"));
    let promising = |kernel: &'static str| Specialisation {
        module: module.clone(),
        kernel,
        first_arch: 0,
        last_arch: u32::MAX,
        no_spills: true,
        narrow_loads: None,
    };
    let told = broken(&promising("bad"), &facts["bad"]).expect("96 floats do not fit in 64 registers");
    assert!(told.starts_with("spills "), "{told}");
    let wide = |kernel| Specialisation { no_spills: false, narrow_loads: Some(2), ..promising(kernel) };
    let told = broken(&wide("bad"), &facts["bad"]).expect("it reads floats one by one");
    assert_eq!(told, "has 0 loads of 16 bytes and 96 narrower ones, 2 allowed");
    assert_eq!(broken(&wide("good"), &facts["good"]), None);
    assert_eq!((facts["good"].wide_loads, facts["good"].narrow_loads), (1, 0));
    assert!(facts["good"].registers > 0);
}

#[test]
fn an_error_of_the_compiler_is_one_line_that_names_the_file() {
    static SOURCE: openclaw_kernels::cuda::Source = openclaw_kernels::cuda::Source {
        file: "bad.cu",
        text: "// a comment\nKERNEL(bad, (32), float* x) { y = 1; }",
    };
    let Some(nvrtc) = nvrtc() else { return };
    let told = nvrtc.compile(&Module::new(&SOURCE), 80).expect_err("y is not declared").to_string();
    assert!(told.contains("bad.cu(2): error") && told.contains("\"y\"") && !told.contains('\n'), "{told}");
}
