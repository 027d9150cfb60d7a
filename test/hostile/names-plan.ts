/**
 * The addresses of the attacks on names. All are on loopback of a network namespace that the test makes,
 * and none is a loopback address, so that the gateway treats them as it treats those of a LAN.
 * @module
 */

/** The cloud gateway, with a rule for ".". */
export const GATEWAY = '10.0.0.1';
/** The edge gateway of site-a. */
export const EDGE = '10.0.0.2';
/** A host of the cloud, whose address an attacker may forge. */
export const VICTIM = '10.0.0.5';
/** Another host, in the same /24. */
export const CLIENT = '10.0.0.6';
/** An address that is not a source of the cloud. */
export const FOREIGN = '203.0.113.9';

export const UPSTREAM_PORT = 5353;
export const SLOW_PORT = 5354;
