package client

// ReadEvent is the reader of a subscription's events.
var ReadEvent = readEvent
