/**
 * Patterns of texts for JSON Schemas: ECMAScript, without flags and anchors. Each matches every text that the parsers of
 * this library accept, and as few others as a pattern can.
 * @module
 */

const OCTET = '(25[0-5]|2[0-4][0-9]|[01]?[0-9]{1,2})';

export const IPV4_PATTERN: string = `${OCTET}(\\.${OCTET}){3}`;
/** What has a colon and the characters of an address. */
export const IPV6_PATTERN = '[0-9a-fA-F:.]*:[0-9a-fA-F:.]*';
export const IPV4_LENGTH_PATTERN = '(/([0-9]|[12][0-9]|3[0-2]))?';
export const IPV6_LENGTH_PATTERN = '(/([0-9]{1,2}|1[01][0-9]|12[0-8]))?';
/** The numbers up to 65,535, with leading zeros up to five digits. */
export const PORT_PATTERN =
  '([0-9]{1,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])';
