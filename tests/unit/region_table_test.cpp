// Regions by number: a key finds its region again, and numbers of regions that are gone serve others.
#include <gtest/gtest.h>

#include <vector>

#include "transport/common/region_table.hpp"

namespace evpl::transport {
namespace {

TEST(RegionTable, FindsEachRegionByItsKey) {
    std::vector<int> regions(100);
    std::vector<std::uint64_t> keys;
    RegionTable<int> table;
    for (std::size_t i = 0; i < regions.size(); ++i) {
        const auto key = table.add(&regions[i], std::uint32_t(0xffffff00 + i));
        ASSERT_TRUE(key.ok());
        EXPECT_EQ(RegionTable<int>::lkey_of(*key), std::uint32_t(0xffffff00 + i));
        keys.push_back(*key);
    }
    for (std::size_t i = regions.size(); i-- > 0;) EXPECT_EQ(table.remove(keys[i]), &regions[i]);
}

TEST(RegionTable, UsesNumbersAgain) {
    int one = 0, two = 0, three = 0;
    RegionTable<int> table;
    const auto first = table.add(&one, 7), second = table.add(&two, 8);
    EXPECT_EQ(table.remove(*first), &one);
    const auto third = table.add(&three, 9);
    EXPECT_EQ(*third >> 32, *first >> 32);
    EXPECT_EQ(table.remove(*second), &two);
    EXPECT_EQ(table.remove(*third), &three);
}

}  // namespace
}  // namespace evpl::transport
