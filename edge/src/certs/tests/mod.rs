//! The store on real files with real keys: what is found, refused, replaced, chosen, told.

mod choosing;
mod many;
mod pairs;
mod reloading;
mod support;
