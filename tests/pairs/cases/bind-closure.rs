//# accept
//# hot bind_closure::listen
//# near accept
//# near hot bind_closure::listen::{{closure}}|core::ops::function::FnOnce::call_once{{vtable.shim}}

// The fix registers one callback more in front of two others: the hashes in the names of closures hide a number, which
// moves. Live objects hold the address of the first. Near: the body of the second changed.
use std::sync::Mutex;

type Callback = Box<dyn Fn(i32) -> i32 + Send>;

static CALLBACKS: Mutex<Vec<Callback>> = Mutex::new(Vec::new());

#[inline(never)]
fn add(callback: Callback) {
    CALLBACKS.lock().unwrap().push(callback);
}

#[inline(never)]
fn listen(fd: i32) {
    #[cfg(fixed)]
    add(Box::new(move |x| x - fd));
    add(Box::new(move |x| x + fd));
    add(Box::new(move |x| x * fd + if cfg!(near) { 2 } else { 1 }));
}

fn main() {
    let times = std::env::args().count() as i32;
    listen(times);
    let sum: i32 = CALLBACKS.lock().unwrap().iter().map(|callback| callback(times)).sum();
    println!("{sum}");
}
