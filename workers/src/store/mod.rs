//! The store port: what is kept of events and how it is read back. The URL's scheme picks the adapter.
