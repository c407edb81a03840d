/**
 * The file that sets the pool of huge pages of a size, in bytes. For the default size sysctl vm.nr_hugepages
 * sets it, too. Source: hugetlbpage.rst.
 */
export const hugePoolFile = (page_bytes: number): string =>
  `/sys/kernel/mm/hugepages/hugepages-${page_bytes / 1024}kB/nr_hugepages`;
