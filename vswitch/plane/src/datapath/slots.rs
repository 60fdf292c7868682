//! A table by small number. The datapath keeps ports and bridges in it, and a worker its queues. The control side numbers both by it.

/// Things by small number, with gaps.
#[derive(Debug)]
pub struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    /// The thing with this number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.0.get(number as usize)?.as_ref()
    }

    /// The thing with this number, to change.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.0.get_mut(number as usize)?.as_mut()
    }

    /// Puts a thing in, instead of what had its number.
    pub fn insert(&mut self, number: u32, thing: T) {
        let index = number as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(thing);
    }

    /// The thing with this number, made if there is none.
    pub fn get_or_insert_with(&mut self, number: u32, make: impl FnOnce() -> T) -> &mut T {
        let index = number as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_with(make)
    }

    /// Takes a thing out.
    pub fn remove(&mut self, number: u32) -> Option<T> {
        self.0.get_mut(number as usize)?.take()
    }

    /// The lowest number that is free.
    pub fn vacancy(&self) -> u32 {
        let index = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// All things with their numbers, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.0).filter_map(|(number, slot)| Some((number, slot.as_mut()?)))
    }

    /// All things with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.0).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }
}
