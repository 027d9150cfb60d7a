/**
 * What a program observes of a running gateway: its log.
 * @module
 */
export { type LogFields, type Logger, silentLogger } from './logger.ts';
