package localnet

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// A node's API listens at one port of loopback, the node itself portsApart above. FreePorts chooses API ports from
// firstPort up to lastPort, so that both lie below what the kernel gives to outgoing connections.
const (
	portsApart = 10_000
	firstPort  = 11_000
	lastPort   = 22_000
)

// FreePorts finds ports for so many nodes, none of which is taken now. It returns the first node's, for
// Options.APIPort. Processes begin to look at different places, so that two at once rarely find the same.
func FreePorts(nodes int) (int, error) {
	begin := os.Getpid() * 37 % (lastPort - firstPort)
	free := 0
	for k := range 2 * (lastPort - firstPort) {
		port := firstPort + (begin+k)%(lastPort-firstPort)
		if port == firstPort {
			free = 0 // a row does not go around the end
		}
		if _, err := takenPort(port); err != nil {
			free = 0
		} else if free++; free == nodes {
			return port - nodes + 1, nil
		}
	}
	return 0, fmt.Errorf("no %d ports in a row are free from %d to %d: stop what uses them", nodes, firstPort, lastPort)
}

// takenPort tells which of a node's ports is taken, and how that was seen.
func takenPort(api int) (port int, err error) {
	if err := listens("tcp", api); err != nil {
		return api, err
	}
	if err := listens("tcp", api+portsApart); err != nil {
		return api + portsApart, err
	}
	return api + portsApart, listens("udp", api+portsApart)
}

// listens is nil if one can listen at a port of loopback.
func listens(network string, port int) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if network == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return l.Close()
}
