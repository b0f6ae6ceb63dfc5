//! Unwind tables and exception tables: a good image whose tables are the input.

#![no_main]

use std::sync::{Arc, LazyLock};

use invivo_image::{Image, Lsda};
use libfuzzer_sys::fuzz_target;
use object::read::{File, Object as _, ObjectSection as _};

static IMAGE: &[u8] = include_bytes!("../seeds/image/throws");

/// Where `.eh_frame` and `.gcc_except_table` of that image are.
static TABLES: LazyLock<[(usize, usize); 2]> = LazyLock::new(|| {
    let file = File::parse(IMAGE).expect("an image");
    [".eh_frame", ".gcc_except_table"].map(|name| {
        let section = file.section_by_name(name).and_then(|s| s.file_range());
        let (start, size) = section.expect("it has the section");
        let number = |value: u64| usize::try_from(value).expect("inside the file");
        (number(start), number(size))
    })
});

fuzz_target!(|data: &[u8]| {
    let Some((which, tables)) = data.split_first() else {
        return;
    };
    let mut file = IMAGE.to_vec();
    let (start, size) = TABLES[usize::from(*which) % 2];
    let used = tables.len().min(size);
    file[start..start + used].copy_from_slice(&tables[..used]);
    let Ok(image) = Image::parse(Arc::from(file), None) else {
        return;
    };
    for fde in &image.unwind.fdes {
        let _ = image.unwind.steps(&image, fde);
    }
    for lsda in &image.unwind.lsdas {
        let _ = Lsda::parse(&image, *lsda);
    }
});
