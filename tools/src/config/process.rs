use super::schema::section;
use super::value::Number;

section! {
    /// The process itself: what the system does to it when memory or time is short, and what it may do.
    pub struct ProcessSection in "process" {
        /// What is added to its chance of being killed when memory runs out; -1000: never. The audit daemon has
        /// fixed memory, so that killing it gains little.
        [restart] oom_score: Number<-1000, 1000> = Number(-1000);
        /// Niceness: less is more of the processor. auditd's priority_boost = 4 is -4.
        [restart] priority: Number<-20, 19> = Number(-4);
        /// Keep its memory out of swap, from when it is first used. Not done, and said, where the limit on locked
        /// memory is too small for it.
        [restart] mlock: bool = true;
        /// Give up every capability that recording does not need. Commands that it runs (`checkpoint.exec`) do not
        /// have them either.
        [restart] drop_capabilities: bool = true;
        /// Capabilities to keep beside those, for the commands that it runs.
        [restart] keep_capabilities: Vec<String> = Vec::new();
    }
}
