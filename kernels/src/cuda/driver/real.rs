//! A GPU, through its driver.
