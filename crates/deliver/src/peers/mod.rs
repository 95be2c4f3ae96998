//! Programs that are spoken to: shared by deliveries and by `hilum send`.

pub mod storage_scu;
