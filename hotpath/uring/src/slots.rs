//! A table of things named by index and generation: connections, listeners.
//!
//! An index is reused, an id is not: the generation grows each time a slot is emptied. After it has
//! once been as large as it gets, the table does not allocate.

/// See the module. `capacity_max` bounds the number of things at once.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity_max: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new(capacity_max: u32) -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new(), capacity_max }
    }

    /// The name the next thing put in will have; `None` when the table is full.
    pub(crate) fn vacant(&self) -> Option<(u32, u32)> {
        if let Some(&index) = self.free.last() {
            return Some((index, self.slots[index as usize].generation));
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        (index < self.capacity_max).then_some((index, 0))
    }

    /// Puts `value` in a free slot; gives it back when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<(u32, u32), T> {
        let Some((index, generation)) = self.vacant() else { return Err(value) };
        match self.free.pop() {
            Some(_) => self.slots[index as usize].value = Some(value),
            None => self.slots.push(Slot { generation, value: Some(value) }),
        }
        Ok((index, generation))
    }

    pub(crate) fn find(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation == generation { slot.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(value)
    }

    /// Everything in the table, in order of index.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, u32, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(index, slot)| {
            let index = u32::try_from(index).ok()?;
            slot.value.as_mut().map(|value| (index, slot.generation, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_valid_again_after_its_slot_is_emptied() {
        let mut slots = Slots::new(2);
        let (index, generation) = slots.insert('a').unwrap();
        assert_eq!(slots.remove(index, generation), Some('a'));
        assert_eq!(slots.remove(index, generation), None);
        let (again, later) = slots.insert('b').unwrap();
        assert_eq!(again, index);
        assert_ne!(later, generation);
        assert!(slots.find(index, generation).is_none());
        assert_eq!(slots.find(again, later), Some(&mut 'b'));
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut slots = Slots::new(1);
        slots.insert('a').unwrap();
        assert_eq!(slots.insert('b'), Err('b'));
        assert_eq!(slots.iter_mut().count(), 1);
    }
}
