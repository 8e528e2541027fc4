//! The log as its users see it, on the simulated disk.

mod crash;
mod damage;
mod faults;
mod workload;
