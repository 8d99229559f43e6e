//! What fuzzing kept of a target's inputs, for the tests that try them again.

/// All of them, from the repository that is there.
pub(crate) fn kept(repository: &str, target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(repository).join("fuzz/corpus");
    let files = std::fs::read_dir(folder.join(target)).unwrap();
    let kept: Vec<_> = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    assert!(!kept.is_empty(), "nothing of {target} is kept");
    kept
}
