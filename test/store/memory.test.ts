import { MemoryStore } from '../../src/store/index.ts';
import { describeStore } from './conformance.ts';

describeStore('MemoryStore', async () => new MemoryStore());
