//! Which SOP classes are of the Storage service (PS3.4 annex B, GG; PS3.6 annex A).

use hilum_wire::scan::is_uid;

/// C-ECHO.
pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Root of what DICOM registers; classes under any other root are private to their makers.
const DICOM: &str = "1.2.840.10008.";
/// Root of the storage classes, those of later editions included.
const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.";
/// Under the root of storage, but query, retrieve and inventory services.
const NOT_STORAGE: [&str; 8] = ["200.4", "200.5", "200.6", "201.2", "201.3", "201.4", "201.5", "201.6"];
/// Storage classes elsewhere: retired ones of printing; treatment instructions; presets, palettes and implant templates.
const OTHER_STORAGE: [&str; 11] = [
    "1.2.840.10008.5.1.1.27",
    "1.2.840.10008.5.1.1.29",
    "1.2.840.10008.5.1.1.30",
    "1.2.840.10008.5.1.4.34.1",
    "1.2.840.10008.5.1.4.34.7",
    "1.2.840.10008.5.1.4.34.10",
    "1.2.840.10008.5.1.4.38.1",
    "1.2.840.10008.5.1.4.39.1",
    "1.2.840.10008.5.1.4.43.1",
    "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
];

/// Whether objects of a SOP class are stored. A class DICOM does not register may be a maker's storage class: makers propose hardly anything
/// else under their own roots, and an object that names it and its study is worth keeping.
pub(crate) fn is_storage(sop_class: &str) -> bool {
    if !is_uid(sop_class) {
        return false;
    }
    match sop_class.strip_prefix(STORAGE) {
        Some(number) => !NOT_STORAGE.contains(&number),
        None => OTHER_STORAGE.contains(&sop_class) || !sop_class.starts_with(DICOM),
    }
}

#[cfg(test)]
mod tests {
    use super::is_storage;

    #[test]
    fn only_storage_classes_and_private_ones_are_storage() {
        for class in [
            "1.2.840.10008.5.1.4.1.1.2",
            "1.2.840.10008.5.1.4.1.1.481.3",
            "1.2.840.10008.5.1.4.1.1.200.8",
            "1.2.840.10008.5.1.4.1.1.999.9",
            "1.2.840.10008.5.1.4.45.1",
            "1.3.12.2.1107.5.9.1",
        ] {
            assert!(is_storage(class), "{class}");
        }
        for (name, class) in [
            ("verification", "1.2.840.10008.1.1"),
            ("commitment", "1.2.840.10008.1.20.1"),
            ("directory", "1.2.840.10008.1.3.10"),
            ("mpps", "1.2.840.10008.3.1.2.3.3"),
            ("storage service", "1.2.840.10008.4.2"),
            ("print", "1.2.840.10008.5.1.1.9"),
            ("query", "1.2.840.10008.5.1.4.1.2.2.1"),
            ("worklist", "1.2.840.10008.5.1.4.31"),
            ("availability", "1.2.840.10008.5.1.4.33"),
            ("unified procedure step", "1.2.840.10008.5.1.4.34.6.1"),
            ("hanging protocol query", "1.2.840.10008.5.1.4.38.2"),
            ("protocol query", "1.2.840.10008.5.1.4.1.1.200.4"),
            ("real-time video", "1.2.840.10008.10.1"),
            ("a transfer syntax", "1.2.840.10008.1.2.1"),
            ("the root", "1.2.840.10008.5.1.4.1.1"),
            ("no uid", "1.2.826.0.1.storage"),
            ("nothing", ""),
        ] {
            assert!(!is_storage(class), "{name}");
        }
    }
}
