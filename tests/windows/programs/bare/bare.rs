//! Rust without any library, since there is none for Windows on ARM64: the little of `core` that a few
//! functions need, by the names under which the compiler knows it.

#![feature(no_core, lang_items, rustc_attrs, intrinsics, auto_traits)]
#![no_core]
#![crate_type = "lib"]
#![allow(internal_features, unconditional_recursion)]

#[lang = "pointee_sized"]
pub trait PointeeSized {}
#[lang = "meta_sized"]
pub trait MetaSized: PointeeSized {}
#[lang = "sized"]
pub trait Sized: MetaSized {}
#[lang = "copy"]
pub trait Copy {}
impl Copy for i32 {}
#[lang = "drop_in_place"]
unsafe fn drop_in_place<T: PointeeSized>(of: *mut T) {
    unsafe { drop_in_place(of) }
}
#[lang = "freeze"]
unsafe auto trait Freeze {}
#[lang = "sync"]
unsafe auto trait Sync {}
#[lang = "add"]
pub trait Add<R = Self> {
    type Output;
    fn add(self, other: R) -> Self::Output;
}
impl Add for i32 {
    type Output = i32;
    #[inline(always)]
    fn add(self, other: i32) -> i32 {
        wrapping_add(self, other)
    }
}
#[rustc_intrinsic]
pub fn wrapping_add<T: Copy>(one: T, other: T) -> T;

#[unsafe(no_mangle)]
pub static mut TOTAL: i32 = 7;

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn keep(value: i32) -> i32 {
    unsafe {
        TOTAL = TOTAL + value;
        TOTAL
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn answer(value: i32) -> i32 {
    #[cfg(fixed)]
    return unsafe { TOTAL } + keep(value) + 1000;
    #[cfg(not(fixed))]
    return unsafe { TOTAL } + keep(value);
}
