//! Rust without any library, whose functions use constants that have no name: tables of trait objects,
//! which hold addresses. The compiler calls them `anon.HASH.N`, and its pointers to them
//! `__ref_anon.HASH.N`.

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
#[lang = "unsize"]
pub trait Unsize<T: PointeeSized>: PointeeSized {}
#[lang = "coerce_unsized"]
pub trait CoerceUnsized<T> {}
impl<'a, 'b: 'a, T: PointeeSized + Unsize<U>, U: PointeeSized> CoerceUnsized<&'a U> for &'b T {}
#[lang = "dispatch_from_dyn"]
pub trait DispatchFromDyn<T> {}
impl<'a, T: PointeeSized + Unsize<U>, U: PointeeSized> DispatchFromDyn<&'a U> for &'a T {}
#[lang = "legacy_receiver"]
pub trait LegacyReceiver {}
impl<T: PointeeSized> LegacyReceiver for &T {}
#[rustc_intrinsic]
pub fn wrapping_add<T: Copy>(one: T, other: T) -> T;

#[unsafe(no_mangle)]
pub static mut TOTAL: i32 = 7;

pub trait Weigh {
    fn weigh(&self, value: i32) -> i32;
}
struct Light(i32);
struct Heavy(i32);
impl Weigh for Light {
    #[inline(never)]
    fn weigh(&self, value: i32) -> i32 {
        wrapping_add(value, self.0)
    }
}
impl Weigh for Heavy {
    #[inline(never)]
    fn weigh(&self, value: i32) -> i32 {
        wrapping_add(value, wrapping_add(self.0, self.0))
    }
}

#[cfg(fixed)]
struct Fair(i32);
#[cfg(fixed)]
impl Weigh for Fair {
    #[inline(never)]
    fn weigh(&self, value: i32) -> i32 {
        wrapping_add(wrapping_add(value, value), self.0)
    }
}

/// Others may call it, so that the compiler hands it the table itself.
#[inline(never)]
#[unsafe(no_mangle)]
pub fn weighed(scale: &dyn Weigh, value: i32) -> i32 {
    scale.weigh(value)
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn answer(value: i32) -> i32 {
    let scale: &dyn Weigh = match value {
        0 => &Light(3),
        #[cfg(fixed)]
        1 => &Fair(6),
        _ => &Heavy(5),
    };
    unsafe { TOTAL = wrapping_add(TOTAL, value) };
    #[cfg(fixed)]
    return wrapping_add(weighed(scale, value), 1000);
    #[cfg(not(fixed))]
    return weighed(scale, value);
}

#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn get_total(_: i32) -> i32 {
    unsafe { TOTAL }
}
