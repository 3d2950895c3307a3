//! The device the global options ask for: the one place that opens one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use patarm_models::agrees_with_cpu;
use patarm_models::kernels::{
    Backend, Cpu, CpuOptions, Cuda, CudaOptions, DeviceFault, FaultKind, Precision,
};

use crate::cli::{self, Device, Global};
use crate::exit::{self, Code, failure};
use crate::{output, pull};

/// Variables that name a CUDA toolkit.
const TOOLKITS: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];
/// Variables that name an active Python environment.
const ENVIRONMENTS: [&str; 2] = ["VIRTUAL_ENV", "CONDA_PREFIX"];
/// Where a toolkit is installed by default; not always among the system's paths.
const DEFAULT_TOOLKIT: &str = "/usr/local/cuda";

/// CUDA devices in use: several models of one command share a device's memory.
static OPENED: Mutex<Vec<(CudaOptions, Weak<Cuda>)>> = Mutex::new(Vec::new());

/// Opens the device the options ask for. `auto` is the first CUDA device where one can
/// be used and computes what the CPU does, else the CPU.
pub(crate) fn open(global: &Global) -> anyhow::Result<Arc<dyn Backend>> {
    match global.device {
        Device::Cpu => Ok(cpu(global)),
        Device::Cuda(_) if global.precision == cli::Precision::Quantised => {
            let message = "--precision quantised is offered on the CPU only; choose another \
                           precision, or --device cpu";
            Err(failure(Code::Usage, message))
        }
        Device::Cuda(ordinal) => {
            let opened = cuda(ordinal, global.precision);
            Ok(opened.map_err(|fault| explain(global.device, &fault))?)
        }
        Device::Auto => Ok(automatic_cuda(global).unwrap_or_else(|| cpu(global))),
    }
}

/// What the results of a device depend on, beside its precision: its name where it is
/// not the CPU.
pub(crate) fn label(global: &Global) -> anyhow::Result<String> {
    let opened: Option<Arc<dyn Backend>> = match global.device {
        Device::Cpu => None,
        Device::Auto => automatic_cuda(global),
        Device::Cuda(_) => Some(open(global)?),
    };
    Ok(opened.map_or_else(|| format!("{:?}", global.device), |backend| backend.name()))
}

fn cpu(global: &Global) -> Arc<dyn Backend> {
    let precision = match global.precision {
        cli::Precision::Auto => Precision::detect(),
        cli::Precision::F32 => Precision::F32,
        cli::Precision::Bf16 => Precision::Bf16,
        cli::Precision::Quantised => Precision::Quantised,
    };
    let options = CpuOptions { threads: global.threads, precision, ..CpuOptions::default() };
    // The detected instructions are always present.
    Arc::new(Cpu::with_options(&options).unwrap_or_else(|| Cpu::new(global.threads)))
}

/// The first CUDA device, where it can do what is asked (only the CPU keeps weights
/// quantised) and is trusted, which is found out once.
fn automatic_cuda(global: &Global) -> Option<Arc<dyn Backend>> {
    static TRUSTED: OnceLock<bool> = OnceLock::new();
    if global.precision == cli::Precision::Quantised || TRUSTED.get() == Some(&false) {
        return None;
    }
    let device = cuda(0, global.precision).ok();
    let trusted = *TRUSTED.get_or_init(|| device.as_ref().is_some_and(agrees));
    Some(device.filter(|_| trusted)?)
}

/// Whether a device gives the CPU's numbers; a remark where not.
fn agrees(device: &Arc<Cuda>) -> bool {
    let backend: Arc<dyn Backend> = Arc::clone(device) as _;
    let reason = match exit::without_faults(|| Ok(agrees_with_cpu(&backend)?)) {
        Ok(true) => return true,
        Ok(false) => "other numbers".to_owned(),
        Err(error) => error.to_string(),
    };
    let name = device.name();
    output::remark(&format!(
        "{name} does not compute what the CPU does ({reason}); the CPU is used"
    ));
    false
}

fn cuda(ordinal: usize, precision: cli::Precision) -> Result<Arc<Cuda>, DeviceFault> {
    let precision = match precision {
        // What tensor cores are for.
        cli::Precision::Auto | cli::Precision::Bf16 => Precision::Bf16,
        cli::Precision::F32 => Precision::F32,
        cli::Precision::Quantised => Precision::Quantised,
    };
    let options = CudaOptions {
        ordinal,
        precision,
        library_folders: library_folders(&|name| std::env::var_os(name)),
        cache: pull::cache_folder().ok().map(|folder| folder.join("kernels")),
    };
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    opened.retain(|(_, device)| device.strong_count() > 0);
    let known = opened.iter().find(|(known, _)| *known == options);
    if let Some(device) = known.and_then(|(_, device)| device.upgrade()) {
        return Ok(device);
    }
    let device = Arc::new(Cuda::open(&options)?);
    opened.push((options, Arc::downgrade(&device)));
    Ok(device)
}

/// Folders searched for CUDA's libraries before the system's own places.
fn library_folders(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let toolkits: Vec<PathBuf> = TOOLKITS.iter().filter_map(set).collect();
    let mut found: Vec<PathBuf> = toolkits.iter().flat_map(|root| toolkit_folders(root)).collect();
    let environments = ENVIRONMENTS.iter().filter_map(set);
    found.extend(environments.flat_map(|root| environment_folders(&root)));
    found.extend(toolkit_folders(Path::new(DEFAULT_TOOLKIT)));
    found.retain(|folder| folder.is_dir());
    found
}

fn toolkit_folders(root: &Path) -> [PathBuf; 2] {
    ["lib64", "lib"].map(|name| root.join(name))
}

/// `lib/python*/site-packages/nvidia/*/lib`, and `lib` itself, where conda puts them.
fn environment_folders(root: &Path) -> Vec<PathBuf> {
    let lib = root.join("lib");
    let pythons = entries(&lib).into_iter().filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
    });
    let packages = pythons.flat_map(|python| entries(&python.join("site-packages/nvidia")));
    let mut found: Vec<PathBuf> = packages.map(|package| package.join("lib")).collect();
    found.push(lib);
    found
}

/// What a folder holds, in order; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = read.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// What was asked for, what is wrong, and where it was looked for.
fn explain(device: Device, fault: &DeviceFault) -> anyhow::Error {
    let mut sentence = format!("--device {device}: {fault}");
    if fault.kind() == FaultKind::Missing {
        sentence.push_str("; ");
        sentence.push_str(&places(&|name| std::env::var_os(name)));
    }
    failure(Code::Device, sentence)
}

fn places(variable: &dyn Fn(&str) -> Option<OsString>) -> String {
    let first = |names: &[&str]| {
        let value = names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        value.map(|value| value.to_string_lossy().into_owned())
    };
    let toolkit = first(&TOOLKITS).unwrap_or_else(|| "not set".into());
    let environment = first(&ENVIRONMENTS).unwrap_or_else(|| "none is active".into());
    format!(
        "looked for libcuda in the system's library paths, and for libnvrtc and libcublasLt in \
         CUDA_HOME ({toolkit}), nvidia/*/lib of the Python environment ({environment}), \
         {DEFAULT_TOOLKIT} and the system's library paths"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_looked_for_in_toolkit_and_environment() {
        let folder = tempfile::tempdir().expect("folder");
        let (toolkit, environment) = (folder.path().join("cuda"), folder.path().join("venv"));
        let nvidia = environment.join("lib/python3.11/site-packages/nvidia");
        let expected = [
            toolkit.join("lib64"),
            nvidia.join("cu13/lib"),
            nvidia.join("cublas/lib"),
            environment.join("lib"),
        ];
        for folder in &expected {
            std::fs::create_dir_all(folder).expect("folder");
        }
        std::fs::create_dir_all(nvidia.join("empty")).expect("folder");
        let found = library_folders(&|name| match name {
            "CUDA_HOME" => Some(toolkit.clone().into()),
            "VIRTUAL_ENV" => Some(environment.clone().into()),
            "CONDA_PREFIX" => Some(OsString::new()),
            _ => None,
        });
        let found: Vec<_> =
            found.into_iter().filter(|path| path.starts_with(folder.path())).collect();
        assert_eq!(found, expected);
        assert!(
            !library_folders(&|_| None).iter().any(|path| path.starts_with(folder.path())),
            "nothing is remembered"
        );
    }

    #[test]
    fn the_places_that_were_searched_are_named() {
        let nothing = places(&|_| None);
        assert!(nothing.contains("CUDA_HOME (not set)"), "{nothing}");
        assert!(nothing.contains("(none is active)"), "{nothing}");
        let set = places(&|name| (name == "CUDA_HOME").then(|| "somewhere".into()));
        assert!(set.contains("CUDA_HOME (somewhere)"), "{set}");
    }
}
