package wire

// DecrementTTL takes one from the time to live or hop limit of the valid IP
// packet at the start of ip; it must not be 0.
func DecrementTTL(ip []byte) {
	if ip[0]>>4 == 6 {
		ip[v6HopLimit]--
		return
	}
	IPv4(ip).set16(v4TTL, be.Uint16(ip[v4TTL:])-1<<8)
}

// SetTOS sets the DSCP and ECN fields of the valid IP packet at the start of
// ip, be they its type of service or its traffic class.
func SetTOS(ip []byte, tos uint8) {
	if ip[0]>>4 == 6 {
		IPv6(ip).SetTrafficClass(tos)
		return
	}
	IPv4(ip).SetTOS(tos)
}
