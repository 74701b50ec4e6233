package client

import "time"

// Hurry makes a client less patient with brokers.
func (c *Client) Hurry(verdict, final time.Duration) { c.distillFor, c.distillIn = verdict, final }

// ReadEvent is the reader of a subscription's events.
var ReadEvent = readEvent
