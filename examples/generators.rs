//! Generators that give values and are sent some, and generators that delegate to others, which is where
//! Python's coroutines come from. The helper `Coroutine` is made of a future and two cells: an `async fn`
//! is a generator that somebody resumes, and an event loop is that somebody.
//!
//! `cargo run --example generators`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::cell::Cell;
use std::rc::Rc;

use tulipa_examples::coroutine::{Coroutine, Step, Yielder};

/// A bank, and machines that keep giving for as long as it is well.
#[derive(Clone, Default)]
struct Bank {
    crisis: Rc<Cell<bool>>,
}

impl Bank {
    fn create_atm(&self) -> impl Iterator<Item = &'static str> + use<> {
        let crisis = self.crisis.clone();
        Coroutine::new(move |(), machine: Yielder<(), &'static str>| async move {
            while !crisis.get() {
                machine.give("$100").await;
            }
        })
    }
}

fn bank_atm() {
    let bank = Bank::default();
    let mut corner_atm = bank.create_atm();
    println!("atm: {:?} {:?}", corner_atm.next(), corner_atm.next());
    bank.crisis.set(true);
    println!("in a crisis: {:?}", corner_atm.next());
    println!("a new one in a crisis: {:?}", bank.create_atm().next());
}

/// A duplex generator: it is sent amounts, and gives what is left.
fn account(balance: i64) -> Coroutine<i64, i64, String> {
    Coroutine::new(move |amount, clerk: Yielder<i64, i64>| async move {
        let (mut balance, mut amount) = (balance, amount);
        while amount <= balance {
            balance -= amount;
            amount = clerk.give(balance).await;
        }
        format!("refused, {balance} stay")
    })
}

fn duplex() {
    let mut account = account(100);
    for amount in [30, 50, 40, 10] {
        match account.resume(amount) {
            Some(Step::Gave(left)) => println!("account: {left} left"),
            Some(Step::Returned(last_word)) => println!("account: {last_word}"),
            None => println!("account: closed"),
        }
    }
}

/// A subgenerator with a return value: the mean of what it is sent, up to a zero.
async fn mean(first: f64, reader: &Yielder<f64, usize>) -> f64 {
    let (mut sum, mut count, mut next) = (0.0, 0, first);
    while next != 0.0 {
        sum += next;
        count += 1;
        next = reader.give(count).await;
    }
    sum / f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// `yield from`: what is sent goes to the subgenerator, and what it gives comes out; its return value is the
/// value of the `await`.
fn delegating() {
    let mut report = Coroutine::new(|first, reader: Yielder<f64, usize>| async move {
        let girls = mean(first, &reader).await;
        let first = reader.give(0).await;
        let boys = mean(first, &reader).await;
        format!("girls {girls:.1}, boys {boys:.1}")
    });
    for weight in [40.0, 42.0, 0.0, 38.0, 43.0, 42.0, 0.0] {
        match report.resume(weight) {
            Some(Step::Gave(count)) => println!("sent {weight}: {count} so far"),
            Some(Step::Returned(result)) => println!("returned: {result}"),
            None => unreachable!("the last zero ends it"),
        }
    }
}

fn main() {
    bank_atm();
    duplex();
    delegating();
}
