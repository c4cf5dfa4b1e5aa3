//! What the programs of this machine can stand for: the images of its distribution, and the packages that it has where a
//! sandbox sees them.
use std::{collections::BTreeSet, fs, path::Path};

use super::dockerfile::Offer;

/// Folders below `/usr` that Python of the distribution looks into; `*` is its version.
const PYTHON: [&str; 4] = [
    "/usr/lib/python3/dist-packages",
    "/usr/lib/*/site-packages",
    "/usr/local/lib/*/dist-packages",
    "/usr/local/lib/*/site-packages",
];

impl Offer {
    /// What this machine has, and images that an operator lets it stand for.
    pub fn host(images: &[String]) -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let status = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
        let mut offer = Self { images: own_images(&release), apt: installed(&status), pip: BTreeSet::new() };
        offer.images.extend(images.iter().cloned());
        for pattern in PYTHON {
            match pattern.split_once("/*/") {
                None => offer.pip.extend(distributions(Path::new(pattern))),
                Some((before, after)) => {
                    let versions = fs::read_dir(before).into_iter().flatten().flatten();
                    let versions =
                        versions.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
                    versions.for_each(|entry| offer.pip.extend(distributions(&entry.path().join(after))));
                }
            }
        }
        offer
    }
}

/// `debian:12`, `debian:bookworm` and so on, by the text of an `os-release`.
fn own_images(release: &str) -> BTreeSet<String> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let Some(name) = value("ID") else { return BTreeSet::new() };
    let tags = [value("VERSION_ID"), value("VERSION_CODENAME")].into_iter().flatten();
    let with_slim = tags.flat_map(|tag| [format!("{name}:{tag}"), format!("{name}:{tag}-slim")]);
    with_slim.collect()
}

/// Debian packages that are installed, by the text of dpkg's `status`.
fn installed(status: &str) -> BTreeSet<String> {
    let name = |package: &str| {
        package.lines().any(|line| line == "Status: install ok installed").then_some(())?;
        package.lines().find_map(|line| line.strip_prefix("Package: ")).map(str::to_owned)
    };
    status.split("\n\n").filter_map(name).collect()
}

/// Python packages by their `NAME-VERSION.dist-info` and `.egg-info`.
fn distributions(folder: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info"))?;
        let name = stem.split('-').next().unwrap_or(stem);
        Some(name.to_ascii_lowercase().replace(['_', '.'], "-"))
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_packages_are_named_as_tasks_name_them() {
        let images = own_images("NAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\n");
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        assert_eq!(images, ["ubuntu:24.04", "ubuntu:24.04-slim", "ubuntu:noble", "ubuntu:noble-slim"]);
        let status = "Package: bash\nStatus: install ok installed\n\nPackage: gone\nStatus: deinstall ok config-files\n";
        assert_eq!(installed(status), BTreeSet::from(["bash".to_owned()]));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("Ruamel.yaml-0.18.dist-info")).unwrap();
        fs::create_dir(folder.path().join("yaml")).unwrap();
        assert_eq!(distributions(folder.path()), ["ruamel-yaml"]);
        assert!(Offer::host(&["mine:1".to_owned()]).images.contains("mine:1"));
    }
}
