/**
 * The calls of `dgram.Socket` that have no meaning on a stack without a link: there is no multicast, no broadcast and
 * no router whose hops could be limited.
 * @module
 */
import { EventEmitter } from 'node:events';
import { systemError } from '../node/system-error.ts';

/** Each call throws a system error ENOTSUP, as a kernel does that cannot do it. */
export class UnsupportedDatagramCalls extends EventEmitter {
  addMembership(_group: string, _interface?: string): never {
    throw systemError('ENOTSUP', 'addMembership');
  }

  dropMembership(_group: string, _interface?: string): never {
    throw systemError('ENOTSUP', 'dropMembership');
  }

  addSourceSpecificMembership(_source: string, _group: string, _interface?: string): never {
    throw systemError('ENOTSUP', 'addSourceSpecificMembership');
  }

  dropSourceSpecificMembership(_source: string, _group: string, _interface?: string): never {
    throw systemError('ENOTSUP', 'dropSourceSpecificMembership');
  }

  setBroadcast(_flag: boolean): never {
    throw systemError('ENOTSUP', 'setBroadcast');
  }

  setMulticastInterface(_interface: string): never {
    throw systemError('ENOTSUP', 'setMulticastInterface');
  }

  setMulticastLoopback(_flag: boolean): never {
    throw systemError('ENOTSUP', 'setMulticastLoopback');
  }

  setMulticastTTL(_ttl: number): never {
    throw systemError('ENOTSUP', 'setMulticastTTL');
  }

  setTTL(_ttl: number): never {
    throw systemError('ENOTSUP', 'setTTL');
  }
}
