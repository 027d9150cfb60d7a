/**
 * What a program learns of a running gateway: today the lines of its log.
 * @module
 */
export { type LogFields, type Logger, silentLogger } from './logger.ts';
