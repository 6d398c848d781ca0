//! Serving HTTP/1.1 on TCP and Unix sockets with limits on time, size and number.
