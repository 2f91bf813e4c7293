//! No ring of imports among the files of a folder, and none among the folders: each file can be read, tested and moved after those
//! it imports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders of `src` whose files must not be part of a ring.
const FOLDERS: &[&str] = &["base", "element", "flow", "gcssink", "ingest", "iotcorestatus", "upload"];

/// A module by its path from the crate's root, e.g. `["iotcorestatus", "report", "phase"]`.
type Module = Vec<String>;

/// Which module imports which.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// `src/a/mod.rs` and `src/a.rs` are the module `a`, `src/lib.rs` is the root.
fn module_of(relative: &Path) -> Module {
    let mut module: Module = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// The code without comments, texts and unit tests, and without what only looks like an import: the visibility `pub(in PATH)`, and
/// the type that `glib::wrapper!` names, for the two halves of a GObject class need each other.
fn code_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    for line in source.lines() {
        code.push_str(line.split("//").next().unwrap());
        code.push('\n');
    }
    let code = without(&code, "pub(in ", ')');
    let code = without(&code, "glib::wrapper!", '}');
    let texts = code.split('"').step_by(2);
    texts.collect::<Vec<_>>().join("\"\"")
}

fn without(code: &str, from: &str, to: char) -> String {
    let mut parts = code.split(from);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(to).map_or("", |(_, rest)| rest));
    }
    kept
}

/// All paths that the code names, `use` trees spelled out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let chars: Vec<char> = code.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if is_word(chars[at]) && (at == 0 || (!is_word(chars[at - 1]) && chars[at - 1] != ':')) {
            tree(&chars, &mut at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Reads one path, and the braces at its end, from `at`.
fn tree(chars: &[char], at: &mut usize, before: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    loop {
        let start = *at;
        while chars.get(*at).copied().is_some_and(is_word) {
            *at += 1;
        }
        if *at > start {
            path.push(chars[start..*at].iter().collect());
        }
        if !(chars.get(*at) == Some(&':') && chars.get(*at + 1) == Some(&':')) {
            break;
        }
        *at += 2;
        if chars.get(*at) == Some(&'{') {
            *at += 1;
            while chars.get(*at).is_some_and(|c| *c != '}') {
                if chars.get(*at).copied().is_some_and(is_word) {
                    tree(chars, at, &path, found);
                } else {
                    *at += 1;
                }
            }
            *at += 1;
            return;
        }
        if chars.get(*at) == Some(&'*') {
            path.push("*".to_owned());
            break;
        }
        if !chars.get(*at).copied().is_some_and(is_word) {
            break;
        }
    }
    found.push(path);
}

/// The module of a file that a path in `from` leads to, if it is one of ours and another one.
fn target(from: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    // One word alone is a variable, or the `super` of a visibility.
    if path.len() < 2 {
        return None;
    }
    let mut base = from.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (base, rest) = (Module::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        // A child named without `self`.
        name => {
            let child: Module = base.iter().cloned().chain([name.to_owned()]).collect();
            if !modules.contains(&child) {
                return None;
            }
        }
    }
    for part in rest {
        let next: Module = base.iter().cloned().chain([part.clone()]).collect();
        if !modules.contains(&next) {
            break;
        }
        base = next;
    }
    (base != *from && modules.contains(&base)).then_some(base)
}

fn imports() -> Imports {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let name = |file: &PathBuf| module_of(file.strip_prefix(&root).unwrap());
    let is_test = |module: &Module| module.iter().any(|part| part.contains("test"));
    let modules: BTreeSet<Module> = files.iter().map(name).filter(|m| !is_test(m)).collect();
    let mut imports = Imports::new();
    for file in &files {
        let from = name(file);
        if is_test(&from) {
            continue;
        }
        let code = code_of(&std::fs::read_to_string(file).unwrap());
        let to = paths(&code).iter().filter_map(|path| target(&from, path, &modules)).collect();
        imports.insert(from, to);
    }
    imports
}

/// Everything that can be reached from a module along its imports.
fn reachable(from: &Module, imports: &Imports) -> BTreeSet<Module> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&Module> = imports[from].iter().collect();
    while let Some(module) = open.pop() {
        if seen.insert(module.clone()) {
            open.extend(imports.get(module).into_iter().flatten());
        }
    }
    seen
}

/// The files of each ring that the folder takes part in.
fn rings(folder: &str, imports: &Imports) -> BTreeSet<Vec<String>> {
    let of_folder = imports.keys().filter(|m| m.first().is_some_and(|part| part == folder));
    let mut rings = BTreeSet::new();
    for module in of_folder {
        let reached = reachable(module, imports);
        if reached.contains(module) {
            let ring = reached.iter().filter(|other| reachable(other, imports).contains(module));
            rings.insert(ring.map(|m| m.join("::")).collect());
        }
    }
    rings
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let imports = imports();
    for folder in FOLDERS {
        assert!(
            imports
                .keys()
                .filter(|m| m.first().is_some_and(|part| part == folder))
                .count()
                > 3
        );
        let rings = rings(folder, &imports);
        assert!(rings.is_empty(), "{rings:#?}");
    }
}

/// The same imports, of folder by folder. What `lib.rs` registers is above all of them.
fn of_folders(imports: &Imports) -> Imports {
    let mut folders = Imports::new();
    for (from, to) in imports {
        let Some(folder) = from.first() else { continue };
        let others = to.iter().filter_map(|m| m.first()).filter(|other| *other != folder);
        folders
            .entry(vec![folder.clone()])
            .or_default()
            .extend(others.map(|other| vec![other.clone()]));
    }
    folders
}

#[test]
fn no_folder_imports_itself_by_way_of_others() {
    let folders = of_folders(&imports());
    assert!(folders.len() > FOLDERS.len());
    for folder in folders.keys() {
        let rings = rings(&folder[0], &folders);
        assert!(rings.is_empty(), "{rings:#?}");
    }
}

#[test]
fn the_status_element_imports_nothing_from_the_storage_element() {
    let imports = imports();
    let mut wrong = Vec::new();
    for (from, to) in &imports {
        if from.first().is_some_and(|part| part == "iotcorestatus") {
            let foreign = to.iter().filter(|m| ["upload", "gcssink"].contains(&m[0].as_str()));
            wrong.extend(foreign.map(|m| format!("{} imports {}", from.join("::"), m.join("::"))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn rings_are_found_in_every_way_of_writing_an_import() {
    let code = r#"
        use super::{a::X, b};
        pub(super) fn g() {}
        // use crate::ignored::Comment;
        fn f() { crate::c::d::call("crate::text::T"); child::g(); plain(e); }
        pub(in crate::folder) struct S;
        glib::wrapper! { pub struct T(ObjectSubclass<imp::T>) @extends gst::Object; }
    "#;
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let modules: BTreeSet<Module> = [
        "folder",
        "folder::a",
        "folder::b",
        "folder::me",
        "folder::me::child",
        "folder::me::imp",
        "folder::me::e",
        "c::d",
        "c",
        "text",
        "ignored",
    ]
    .into_iter()
    .map(module)
    .collect();
    let from = module("folder::me");
    let found: BTreeSet<Module> = paths(&code_of(code))
        .iter()
        .filter_map(|path| target(&from, path, &modules))
        .collect();
    let expected: BTreeSet<Module> = ["folder::a", "folder::b", "folder::me::child", "c::d"]
        .into_iter()
        .map(module)
        .collect();
    assert_eq!(found, expected);
    let globs = paths("use super::*;");
    let glob = globs.iter().find_map(|path| target(&from, path, &modules));
    assert_eq!(glob, Some(module("folder")));
    let chain = [("x::a", "x::b"), ("x::b", "x::c"), ("x::c", "x::a"), ("x::d", "x::a")];
    let imports: Imports = chain
        .into_iter()
        .map(|(from, to)| (module(from), [module(to)].into()))
        .collect();
    let ring: Vec<String> = ["x::a", "x::b", "x::c"].map(str::to_owned).into();
    assert_eq!(rings("x", &imports), [ring].into());
}

/// The modules that a file declares, other than those of its tests.
fn declared(source: &str) -> Vec<&str> {
    let mut is_for_tests = false;
    let mut declared = Vec::new();
    for line in source.lines() {
        let module = line.strip_suffix(';').and_then(|line| line.split_once("mod "));
        if let Some((visibility, name)) = module
            && (visibility.is_empty() || visibility.starts_with("pub"))
            && !is_for_tests
        {
            declared.push(name);
        }
        // Other attributes may stand between this one and the module.
        is_for_tests = line.starts_with("#[cfg(test)]") || (is_for_tests && line.starts_with("#["));
    }
    declared
}

/// `tests/…`, `tests.rs`, `tests_hostile.rs`
fn is_of_tests(file: &Path) -> bool {
    let below = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    below.iter().any(|part| part.to_str().unwrap().starts_with("tests"))
}

#[test]
fn a_file_with_modules_begins_with_what_each_of_them_is_for() {
    let mut files = Vec::new();
    for folder in ["src", "crates", "recorder/src", "dashboard/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let (mut missing, mut count) = (Vec::new(), 0);
    for file in files.iter().filter(|file| !is_of_tests(file)) {
        let source = std::fs::read_to_string(file).unwrap();
        let head: String = source.lines().take_while(|line| line.starts_with("//!")).collect();
        for name in declared(&source) {
            count += 1;
            let is_there = head
                .split('`')
                .skip(1)
                .step_by(2)
                .any(|text| text.split(['@', ':']).any(|part| part == name));
            if !is_there {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(count > 150, "{count}");
    assert!(missing.is_empty(), "{missing:#?}");
}
