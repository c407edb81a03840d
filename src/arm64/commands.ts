import { bitMask, placeAddress, placeBit, placeField, smallField } from './bit-field.js';

/** Bytes of one command in the queue: four little-endian 64-bit words. */
export const COMMAND_BYTES = 32;

/** Opcodes, bits [7:0] of the first word. */
export const OPCODE = {
  MOVI: 0x01,
  INT: 0x03,
  CLEAR: 0x04,
  SYNC: 0x05,
  MAPD: 0x08,
  MAPC: 0x09,
  MAPTI: 0x0a,
  MAPI: 0x0b,
  INV: 0x0c,
  INVALL: 0x0d,
  MOVALL: 0x0e,
  DISCARD: 0x0f,
} as const;

/** The four words of a command. */
export type CommandWords = readonly [bigint, bigint, bigint, bigint];

/** Maps a device to its translation table of 2^`eventBits` entries, or unmaps it. */
export interface MapDevice {
  readonly kind: 'MAPD';
  readonly device: number;
  readonly eventBits: number;
  readonly itt: bigint;
  readonly valid: boolean;
}
/** Maps a collection to the vCPU with vcpu_id `target`, or unmaps it. */
export interface MapCollection {
  readonly kind: 'MAPC';
  readonly collection: number;
  readonly target: number;
  readonly valid: boolean;
}
/** Maps an event of a device to an LPI in a collection. */
export interface MapInterrupt {
  readonly kind: 'MAPTI';
  readonly device: number;
  readonly event: number;
  readonly intid: number;
  readonly collection: number;
}
/** Like MAPTI with the event's number as the INTID; and MOVI, which moves an event elsewhere. */
export interface EventToCollection {
  readonly kind: 'MAPI' | 'MOVI';
  readonly device: number;
  readonly event: number;
  readonly collection: number;
}
/** Raises, clears, unmaps or re-reads the configuration of an event's LPI. */
export interface EventCommand {
  readonly kind: 'INT' | 'CLEAR' | 'DISCARD' | 'INV';
  readonly device: number;
  readonly event: number;
}
/** Re-reads the configuration of the LPIs of a collection's vCPU. */
export interface InvalidateAll {
  readonly kind: 'INVALL';
  readonly collection: number;
}
/** Moves LPIs from one vCPU to another; both are vcpu_ids. */
export interface MoveAll {
  readonly kind: 'MOVALL';
  readonly from: number;
  readonly to: number;
}
/** Waits for the effects of earlier commands on a vCPU. KVM does nothing. */
export interface Synchronise {
  readonly kind: 'SYNC';
  readonly target: number;
}
/** An opcode that is none of the twelve; KVM skips it. */
export interface UnknownCommand {
  readonly kind: 'unknown';
  readonly opcode: number;
}

export type ItsCommand =
  | MapDevice
  | MapCollection
  | MapInterrupt
  | EventToCollection
  | EventCommand
  | InvalidateAll
  | MoveAll
  | Synchronise;

/** Bits [63:32] of word 0, [31:0] of word 1. */
const device = ([dw0]: CommandWords): number => smallField(dw0, 63, 32);
const event = ([, dw1]: CommandWords): number => smallField(dw1, 31, 0);
const collection = ([, , dw2]: CommandWords): number => smallField(dw2, 15, 0);
const target = ([, , dw2]: CommandWords): number => smallField(dw2, 47, 16);
const valid = ([, , dw2]: CommandWords): boolean => dw2 >> 63n === 1n;

/**
 * Decodes a command as KVM reads it: fields it does not use are ignored.
 * ```
 *        DW0                 DW1                  DW2                          DW3
 * MAPD   dev [63:32] 08      eventBits-1 [4:0]    ITT PA[51:8] in place, V 63
 * MAPC               09                           ICID [15:0] RDbase [47:16] V 63
 * MAPTI  dev [63:32] 0a      intid [63:32] ev [31:0]  ICID [15:0]
 * MAPI   dev [63:32] 0b      ev [31:0]            ICID [15:0]
 * MOVI   dev [63:32] 01      ev [31:0]            ICID [15:0]
 * INT 03  CLEAR 04  INV 0c  DISCARD 0f:  dev [63:32], ev [31:0]
 * INVALL             0d                           ICID [15:0]
 * MOVALL             0e                           from [47:16]                 to [47:16]
 * SYNC               05                           RDbase [47:16]
 * ```
 */
export function decodeCommand(words: CommandWords): ItsCommand | UnknownCommand {
  const [dw0, dw1, dw2, dw3] = words;
  const opcode = Number(dw0 & 0xffn);
  switch (opcode) {
    case OPCODE.MAPD:
      return {
        kind: 'MAPD',
        device: device(words),
        eventBits: smallField(dw1, 4, 0) + 1,
        itt: dw2 & bitMask(51, 8),
        valid: valid(words),
      };
    case OPCODE.MAPC:
      return { kind: 'MAPC', collection: collection(words), target: target(words), valid: valid(words) };
    case OPCODE.MAPTI:
      return {
        kind: 'MAPTI',
        device: device(words),
        event: event(words),
        intid: smallField(dw1, 63, 32),
        collection: collection(words),
      };
    case OPCODE.MAPI:
    case OPCODE.MOVI: {
      const kind = opcode === OPCODE.MAPI ? 'MAPI' : 'MOVI';
      return { kind, device: device(words), event: event(words), collection: collection(words) };
    }
    case OPCODE.INT:
      return { kind: 'INT', device: device(words), event: event(words) };
    case OPCODE.CLEAR:
      return { kind: 'CLEAR', device: device(words), event: event(words) };
    case OPCODE.DISCARD:
      return { kind: 'DISCARD', device: device(words), event: event(words) };
    case OPCODE.INV:
      return { kind: 'INV', device: device(words), event: event(words) };
    case OPCODE.INVALL:
      return { kind: 'INVALL', collection: collection(words) };
    case OPCODE.MOVALL:
      return { kind: 'MOVALL', from: target(words), to: smallField(dw3, 47, 16) };
    case OPCODE.SYNC:
      return { kind: 'SYNC', target: target(words) };
    default:
      return { kind: 'unknown', opcode };
  }
}

/** Encodes a command; unused fields are zero. Throws RangeError for a value that does not fit its field. */
export function encodeCommand(command: ItsCommand): CommandWords {
  const head = (id?: number): bigint => BigInt(OPCODE[command.kind]) | placeField(id ?? 0, 63, 32);
  switch (command.kind) {
    case 'MAPD': {
      const table = placeAddress(command.itt, 51, 8) | placeBit(command.valid, 63);
      return [head(command.device), placeField(command.eventBits - 1, 4, 0), table, 0n];
    }
    case 'MAPC': {
      const where = placeField(command.collection, 15, 0) | placeField(command.target, 47, 16);
      return [head(), 0n, where | placeBit(command.valid, 63), 0n];
    }
    case 'MAPTI': {
      const ids = placeField(command.event, 31, 0) | placeField(command.intid, 63, 32);
      return [head(command.device), ids, placeField(command.collection, 15, 0), 0n];
    }
    case 'MAPI':
    case 'MOVI':
      return [
        head(command.device),
        placeField(command.event, 31, 0),
        placeField(command.collection, 15, 0),
        0n,
      ];
    case 'INT':
    case 'CLEAR':
    case 'DISCARD':
    case 'INV':
      return [head(command.device), placeField(command.event, 31, 0), 0n, 0n];
    case 'INVALL':
      return [head(), 0n, placeField(command.collection, 15, 0), 0n];
    case 'MOVALL':
      return [head(), 0n, placeField(command.from, 47, 16), placeField(command.to, 47, 16)];
    case 'SYNC':
      return [head(), 0n, placeField(command.target, 47, 16), 0n];
    default:
      return command satisfies never;
  }
}

/** Reads the four words of a command at `offset`. */
export const readCommandWords = (view: DataView, offset: number): CommandWords => [
  view.getBigUint64(offset, true),
  view.getBigUint64(offset + 8, true),
  view.getBigUint64(offset + 16, true),
  view.getBigUint64(offset + 24, true),
];

/** The bytes of a command, as a guest writes them to its queue. */
export function commandBytes(command: ItsCommand): Uint8Array {
  const bytes = new Uint8Array(COMMAND_BYTES);
  const view = new DataView(bytes.buffer);
  encodeCommand(command).forEach((word, index) => view.setBigUint64(index * 8, word, true));
  return bytes;
}
